"""Frames of the simulated camera: every backend against the reference, bit for bit."""

import dataclasses
import importlib
from typing import Any

import pytest
import torch

from tmkt_kernels.ops.camera.area import area_table
from tmkt_kernels.ops.camera.frames import Bins
from tmkt_kernels.ops.camera.functional import simulate_frames
from tmkt_kernels.ops.camera.motion import Motion
from tmkt_kernels.ops.camera.scene import moving_images
from tmkt_kernels.ops.camera.sensor import Camera, SensorModel

# Pixels that do not fire divide by a slope of 0, of which NumPy warns in Triton's interpreter.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")


@dataclasses.dataclass(frozen=True)
class Case:
    """Two short recordings by one camera; `size` of the frames."""

    sensor: dict[str, float] = dataclasses.field(default_factory=dict)
    sensor_size: tuple[int, int] = (7, 6)
    T: int = 3
    size: tuple[int, int] | None = None

    def frames(self, target: tuple[str, str]) -> torch.Tensor:
        backend, device = target
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (2, 1, 6, 7), dtype=torch.uint8, generator=generator).to(device)
        motion = Motion.draw(2, SHORT, legs=2, generator=generator)
        camera = Camera.of(SensorModel(**self.sensor), 2)
        sizes = {"size": self.size, "sensor_size": self.sensor_size}
        return simulate_frames(images, None, motion, camera, self.T, **sizes, seed=7, backend=backend)


SHORT = {"amplitude": (0.6, 1.2), "leg_us": (10_000, 20_000), "rest_us": (0, 20_000), "fill": (0.5, 2)}
NOISY = {"noise_rate": 100.0, "noise_on_share": 0.6, "noise_dimming": 0.8}
CASES = {
    "default": Case(),
    "quick": Case({"latency_us": 500, "refractory_us": 100, "threshold": 0.12, "threshold_off": 0.3}),
    "without-refractory-period": Case({"refractory_us": 0, "threshold": 0.05}),
    "blind-for-many-steps": Case({"refractory_us": 4_000, "latency_us": 500}),
    "leak": Case({"leak_rate": 40.0, "noise_rate": 0.0, "threshold": 0.12}),
    "noise": Case(NOISY),
    "hot-and-dead": Case({"hot_share": 0.3, "hot_rate": 500.0, "dead_share": 0.4}),
    "all-dead": Case({"dead_share": 1.0}),
    "one-bin": Case(NOISY, T=1),
    "many-bins": Case(NOISY, T=13),
    "one-pixel": Case(NOISY, (1, 1)),
    "one-row": Case({"threshold": 0.12}, (12, 1)),
    "one-column": Case(NOISY, (1, 11)),
    "smaller": Case(NOISY, (7, 6), 3, (4, 5)),
    "larger": Case(NOISY, (7, 5), 2, (12, 16)),
    "wider-and-lower": Case({}, (6, 12), 2, (12, 1)),
}


def test_cases_have_events() -> None:
    """Events of both polarities, except for dead pixels, so that equal frames mean something."""
    for name, case in CASES.items():
        off, on = case.frames(("reference", "cpu")).sum((0, 1, 3, 4)).tolist()
        assert (off > 0 and on > 0) == (name != "all-dead"), name


@pytest.mark.parametrize("name", CASES)
def test_each_case(name: str, kernel_target: tuple[str, str]) -> None:
    expected = CASES[name].frames(("reference", "cpu"))
    frames = CASES[name].frames(kernel_target)
    assert frames.dtype == (torch.int16 if CASES[name].size is None else torch.float32)
    assert torch.equal(frames.cpu(), expected)


# Ranges of `Camera.draw`, drawn anew for each case of `test_any_camera_and_motion`.
CAMERAS: list[Any] = [
    "any",
    {"refractory_us": (0, 10), "threshold": (0.02, 0.1)},
    {
        "leak_rate": (0.1, 20),
        "noise_rate": (0.1, 50),
        "noise_dimming": (0, 1),
        "hot_share": (0, 0.3),
        "hot_rate": (10, 1000),
        "dead_share": (0, 0.5),
    },
]


@pytest.mark.parametrize("seed", range(24))
def test_any_camera_and_motion(seed: int, target: tuple[str, str]) -> None:
    backend, device = target
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    shape = (number(1, 3), (1, 3)[number(0, 1)], number(1, 40), number(1, 40))
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    camera = Camera.draw(shape[0], CAMERAS[seed % len(CAMERAS)], generator=generator)
    motion = Motion.draw(shape[0], {**SHORT, "amplitude": (0.1, 6)}, legs=1 + seed % 4, generator=generator)
    sizes = {"sensor_size": (number(1, 40), number(1, 40)), "T": number(1, 12)}
    sizes["size"] = (number(1, 40), number(1, 40)) if number(0, 1) else None
    frames, expected = (
        simulate_frames(images, None, motion, camera, **sizes, seed=seed, backend=b) for b in (backend, "reference")
    )
    assert torch.equal(frames, expected)


@pytest.mark.parametrize("size", [None, (3, 2)])
def test_no_recordings(size: tuple[int, int] | None, every_target: tuple[str, str]) -> None:
    backend, device = every_target
    images = torch.zeros(0, 1, 4, 5, dtype=torch.uint8, device=device)
    frames = simulate_frames(images, None, Motion.draw(0), Camera.draw(0), 2, size, seed=0, backend=backend)
    assert frames.shape == (2, 0, 2, *((4, 5) if size is None else (2, 3)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device-side assertion ends the CUDA context")
@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_a_count_beyond_int16_is_an_error(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a smaller limit, since so many events take long here."""
    pytest.importorskip("triton")
    for module in ("frames", "triton"):
        monkeypatch.setattr(importlib.import_module(f"tmkt_kernels.ops.camera.{module}"), "MOST_COUNT", 1)
    with pytest.raises(RuntimeError, match="more than 32767 events"):
        CASES["noise"].frames((backend, "cpu"))


@pytest.mark.parametrize("size", [None, (2, 3)])
def test_opcheck(size: tuple[int, int] | None, kernel_target: tuple[str, str]) -> None:
    backend, device = kernel_target
    sensor, images = (3, 2), torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)).to(device)
    motion = Motion.draw(1, SHORT, legs=2, generator=torch.Generator().manual_seed(0))
    scene = moving_images(images, motion, Camera.of(SensorModel(), 1), sensor, torch.tensor([7]))
    ends = torch.tensor([[9_000, 2**30]], dtype=torch.int32, device=device)
    tables: list[torch.Tensor | None] = [None, None]
    if size is not None:
        tables = [torch.tensor(area_table(*axis)).to(device) for axis in zip(sensor, size, strict=True)]
    bins = Bins(ends, tables[0], tables[1], *(size or sensor))
    suffix = "_triton" if backend == "triton" else ""
    torch.library.opcheck(getattr(torch.ops.tmkt, f"camera_frames{suffix}"), (*scene, *bins))
