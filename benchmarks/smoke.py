"""Every kernel once on small shapes, against the reference on the CPU: `python -m benchmarks.smoke [--device cuda]`.

For compute-sanitizer: small launches, and little else on the GPU. The shapes reach the wide kernels and the narrow ones
(an odd number of neurons, and views that are not aligned), T beyond one tile of backward's history, and pooling of even
and odd planes. With TRITON_INTERPRET=1 the Triton kernels run on the CPU.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import tmkt_kernels as tk
from benchmarks.case import our_backends
from tmkt_kernels.testing import BN_FLIP_BUDGET, GRADIENT_TOLERANCE, assert_spikes_equal, relative_error

DTYPES = (torch.float32, torch.bfloat16)
SHAPES = {
    "wide in fp32": (5, 3, 7, 6, 10),  # 1,260 neurons: a multiple of 4, not of 8
    "wide, two tiles": (18, 2, 8, 6, 8),
    "odd, two tiles": (17, 1, 3, 5, 7),
    "T = 4": (4, 2, 8, 4, 4),
}
SPREAD = 1.5  # of the inputs, so that some neurons fire at each step


class Scene(NamedTuple):
    """`call(backend, *leaves)` returns outputs, spikes first if there are any; their gradients go to the leaves."""

    name: str
    leaves: tuple[Tensor, ...]
    call: Callable[..., tuple[Tensor, ...]]
    flips: float | None = None
    """The share of spikes that may differ; None: the outputs are not spikes, and must be equal bit for bit."""


def draw(*shape: int) -> Tensor:
    return torch.randn(shape) * SPREAD


def shifted(x: Tensor) -> Tensor:
    """Return the same values in a view that begins 4 elements into its memory."""
    return torch.cat([x.new_zeros(4), x.flatten()])[4:].view(x.shape)


def channels_last(x: Tensor) -> Tensor:
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def plain(x: Tensor) -> Tensor:
    return x


LAYOUTS = {  # of x, and of the state before the first step
    "contiguous": (plain, plain),
    "4 elements off": (shifted, shifted),
    "state 4 elements off": (plain, shifted),
    "channels_last": (channels_last, channels_last),
}


def lif_scenes(dtype: torch.dtype) -> Iterator[Scene]:
    for where, shape in SHAPES.items():
        for layout, (lay, lay_state) in LAYOUTS.items():
            x, v_init = lay(draw(*shape).to(dtype)), lay_state(draw(1, *shape[1:]))[0]
            call = lambda backend, x, v: tk.lif(x, v, return_v=True, backend=backend)  # noqa: E731
            yield Scene(f"lif, {where}, {layout}", (x, v_init), call, 0.0)
        tau, threshold = torch.linspace(1.5, 3, shape[2]), torch.full((shape[2],), 0.8)

        def own(backend: str, x: Tensor, *parameters: Tensor, tau: Tensor = tau) -> tuple[Tensor, ...]:
            tau, threshold = parameters or (tau.to(x.device), 0.8)
            return tk.lif(x, tau=tau, v_threshold=threshold, backend=backend)

        x = draw(*shape).to(dtype)
        yield Scene(f"lif, {where}, parameters of its own", (x,), own, 0.0)
        yield Scene(f"lif, {where}, parameters of its own with gradients", (x, tau, threshold), own, 0.0)


def bn_lif_scenes(dtype: torch.dtype) -> Iterator[Scene]:
    for where, shape in SHAPES.items():
        weight, bias = torch.rand(shape[2]) + 0.5, draw(shape[2]) / 5
        for layout, (lay, lay_state) in LAYOUTS.items():
            x, v_init = lay(draw(*shape).to(dtype)), lay_state(draw(1, *shape[1:]))[0]
            call = lambda backend, *leaves: tk.bn_lif(*leaves, return_v=True, backend=backend)[:3]  # noqa: E731
            yield Scene(f"bn_lif, {where}, {layout}", (x, weight, bias, v_init), call, BN_FLIP_BUDGET)
        x = draw(*shape).to(dtype)

        def given(backend: str, x: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
            mean, var = (torch.full((x.shape[2],), value, device=x.device) for value in (0.1, 2.0))
            return tk.bn_lif(x, *leaves, mean=mean, var=var, backend=backend)[:2]

        def pooled(backend: str, x: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
            averages, v_last, *_ = tk.bn_lif(x, *leaves, pool=2, backend=backend)
            return torch.stack([averages * 4 > i for i in range(4)]).to(x.dtype), averages, v_last

        yield Scene(f"bn_lif, {where}, statistics given", (x, weight, bias), given, BN_FLIP_BUDGET)
        yield Scene(f"bn_lif, {where}, pooled", (x, weight, bias), pooled, BN_FLIP_BUDGET)


def mixup_scenes(dtype: torch.dtype) -> Iterator[Scene]:
    index = torch.tensor([2, 0, 2])  # a source twice, one not at all
    for plane in ((5, 7), (4, 8)):
        static, events = draw(3, 2, *plane).to(dtype), draw(4, 3, 2, *plane).to(dtype)
        for indexed in (False, True):

            def mix(backend: str, static: Tensor, events: Tensor, indexed: bool = indexed) -> tuple[Tensor, ...]:
                device = events.device
                found = {"static_index": index.to(device), "event_index": index.to(device)} if indexed else {}
                switch_step = torch.tensor([0, 4, 2], device=device)
                return (tk.time_step_mixup(static, events, switch_step, **found, scale=(0.5, 2.0), backend=backend),)

            yield Scene(f"mixup, {plane}, {'with' if indexed else 'without'} indices", (static, events), mix)


def camera_scenes(dtype: torch.dtype) -> Iterator[Scene]:
    """Frames of cameras with every kind of pixel; once, because they have no dtype to choose."""
    if dtype != torch.float32:
        return
    generator = torch.Generator().manual_seed(0)
    ranges = {"leak_rate": (1, 20), "noise_rate": (1, 50), "noise_dimming": (0, 1)}
    faulty = {"hot_share": (0, 0.3), "hot_rate": (10, 1000), "dead_share": (0, 0.5)}
    camera = tk.Camera.draw(3, ranges | faulty, generator=generator)
    moves = {"amplitude": (0.6, 1.2), "leg_us": (10_000, 20_000), "rest_us": (0, 20_000), "fill": (0.5, 2)}
    motion = tk.Motion.draw(3, moves, legs=2, generator=generator)
    for sensor_size in ((7, 5), (16, 9)):
        for size in (None, (4, 3), (20, 11)):
            for n_frames in (None, torch.tensor([0, 2, 4])):
                images = torch.randint(0, 256, (3, 3 if size else 1, 6, 8), dtype=torch.uint8, generator=generator)

                def see(
                    backend: str,
                    images: Tensor,
                    sensor_size: tuple[int, int] = sensor_size,
                    size: tuple[int, int] | None = size,
                    n_frames: Tensor | None = n_frames,
                ) -> tuple[Tensor, ...]:
                    settings = {"sensor_size": sensor_size, "n_frames": n_frames, "seed": 3, "backend": backend}
                    return (tk.simulate_frames(images, None, motion, camera, 4, size, **settings).float(),)

                part = "all frames" if n_frames is None else "first frames"
                yield Scene(f"camera, {sensor_size} to {size or 'its own size'}, {part}", (images,), see)


def outcome(scene: Scene, backend: str, device: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return outputs and gradients on the CPU. Moving keeps strides, and views that are offset stay so."""
    leaves = []
    for leaf in scene.leaves:
        moved = shifted(leaf.to(device)) if leaf.storage_offset() == 4 else leaf.to(device)
        leaves.append(moved.detach().requires_grad_(moved.is_floating_point()))
    outputs = scene.call(backend, *leaves)
    generator = torch.Generator().manual_seed(1)
    used = [o for o in outputs if o.requires_grad]
    grads = [torch.randn(o.shape, generator=generator).to(o) for o in used]
    given = torch.autograd.grad(used, leaves, grads) if used else ()
    return tuple(o.detach().cpu() for o in outputs), tuple(g.cpu() for g in given)


def check(scene: Scene, backend: str, device: str, dtype: torch.dtype) -> None:
    (outputs, grads), (expected, expected_grads) = outcome(scene, backend, device), outcome(scene, "reference", "cpu")
    if scene.flips is None:
        assert torch.equal(outputs[0], expected[0]), "not the reference's values"
    else:
        assert_spikes_equal(outputs[0], expected[0], scene.flips)
    tolerance = 2 * GRADIENT_TOLERANCE[dtype]  # because the reference rounds too
    for name, actual, truth in zip(("outputs", "gradients"), (outputs, grads), (expected, expected_grads), strict=True):
        errors = [relative_error(a, t) for a, t in zip(actual, truth, strict=True)]
        assert max(errors, default=0.0) < tolerance, f"{name}: relative L2 errors {errors}, allowed {tolerance}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smoke", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--backend", choices=("native", "triton"), help="this one alone (default: all that run here)")
    arguments = parser.parse_args()
    found = our_backends(arguments.device).values()
    backends = [b for b in found if arguments.backend in (None, b)]
    if not backends:
        parser.error(
            f"backend {arguments.backend!r} does not run here on {arguments.device}: see python -m tmkt_kernels"
        )
    begin, scenes, wrong = time.perf_counter(), 0, 0
    for backend in backends:
        for dtype in DTYPES:
            torch.manual_seed(0)
            for made in (lif_scenes, bn_lif_scenes, mixup_scenes, camera_scenes):
                for scene in made(dtype):
                    title = f"{scene.name}, {str(dtype)[6:]}, {backend}"
                    scenes += 1
                    try:
                        check(scene, backend, arguments.device, dtype)
                        print(f"{title}: as the reference")
                    except AssertionError as error:  # other results are still useful; the exit code tells
                        wrong += 1
                        print(f"WRONG: {title}: {error}")
    if arguments.device == "cuda":
        torch.cuda.synchronize()
    print(f"{scenes} scenes on {arguments.device}, {wrong} wrong, {time.perf_counter() - begin:.1f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
