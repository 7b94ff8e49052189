"""`camera`: from still images to frames of their simulated recordings, all in one call.

A shape is [recordings per call, height and width of the images], so that its first number over the time gives
recordings per second.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import tmkt_kernels as tk
from benchmarks.case import Case, Contestant, Inputs, Shape, Traffic, copy, our_backends, size
from tmkt_kernels import events as ev
from tmkt_kernels.ops.camera.random_numbers import sample_seeds

T = 10
OPERATIONS = 35  # per pixel and step: 9 sample the display, 20 are the logarithm, 3 the low-pass, 3 compare


class Setting(NamedTuple):
    """Where images stand in front of the camera, and how they move.

    border: side of the sensor over that of the images. path_scale: length of the path over that of N-MNIST's, per row
    of the images, so that small ones take few steps. frames: (width, height) of the frames; None for the sensor's.
    blobs: shapes in an image, ellipses with edges `edge` pixels wide.
    """

    border: float
    path_scale: float
    frames: tuple[int, int] | None
    blobs: int
    edge: float

    def path(self, height: int) -> list[tuple[float, float]]:
        scale = self.path_scale * height
        return [(x * scale, y * scale) for x, y in ev.N_MNIST_PATH]

    def sensor_size(self, width: int, height: int) -> tuple[int, int]:
        return round(width * self.border), round(height * self.border)


# So many blobs that a recording has about 4,000 events, as N-MNIST's have, or 40,000, as photographs of this size give.
NMNIST = Setting(border=34 / 28, path_scale=1 / 28, frames=None, blobs=10, edge=1.0)
PHOTOGRAPHS = Setting(border=1.0, path_scale=1.6 / 120, frames=(48, 48), blobs=15, edge=1.5)


def smooth_shapes(shape: Shape, blobs: int, edge: float, device: str) -> Tensor:
    """Return images, uint8 [B, 1, h, w], of overlapping ellipses, of which a quarter are black and a quarter white."""
    B, h, w = shape
    random = torch.rand(6, blobs, B, 1, 1, generator=torch.Generator().manual_seed(0)).to(device)
    x, y = torch.arange(w, device=device) + 0.5, torch.arange(h, device=device)[:, None] + 0.5
    side = min(h, w)
    images = torch.full(shape, 0.5, device=device)
    for left, up, across, down, turn, grey in random.unbind(1):
        cos, sin = (turn * torch.pi).cos(), (turn * torch.pi).sin()
        dx, dy = x - left * w, y - up * h
        a, b = side * (0.05 + 0.25 * across), side * (0.05 + 0.25 * down)
        radius = (((cos * dx + sin * dy) / a) ** 2 + ((cos * dy - sin * dx) / b) ** 2).sqrt()
        inside = ((1 - radius) * torch.minimum(a, b) / edge + 0.5).clamp(0, 1)
        images = images + inside * ((2 * grey - 0.5).clamp(0, 1) - images)
    return (images * 255).round().to(torch.uint8)[:, None]


def inputs(setting: Setting) -> Callable[..., Inputs]:
    def build(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
        B, h, w = shape
        sensor_size = setting.sensor_size(w, h)
        width, height = setting.frames or sensor_size
        out = torch.empty(T, B, 2, height, width, device=device, dtype=torch.float32 if setting.frames else torch.int16)
        return Inputs(
            setting=setting,
            images=smooth_shapes(shape, setting.blobs, setting.edge, device),
            motion=tk.Motion.saccades(B, path=setting.path(h), fill=1 / min(sensor_size[0] / w, sensor_size[1] / h)),
            camera=tk.Camera.of(ev.SensorModel(), B),
            sensor_size=sensor_size,
            seeds=torch.cat([sample_seeds(b, 1) for b in range(B)]),  # those of recordings made one by one
            data=torch.ones_like(out),
            out=out,
        )

    return build


def simulate(inputs: Inputs, backend: str) -> Tensor:
    return tk.simulate_frames(
        inputs.images,
        None,
        inputs.motion,
        inputs.camera,
        T,
        inputs.setting.frames,
        sensor_size=inputs.sensor_size,
        seed=inputs.seeds,
        backend=backend,
    )


def by_events(inputs: Inputs) -> Tensor:
    """List each recording's events, then count them."""
    setting, span = inputs.setting, (0, int(inputs.motion.duration_us()[0]))
    path = setting.path(inputs.images.shape[2])
    frames = []
    for b, image in enumerate(inputs.images[:, 0].numpy()):
        events = ev.simulate_saccades(image, sensor_size=inputs.sensor_size, path=path, scale=1.0, seed=b)
        frames.append(ev.to_frames(events, T, inputs.sensor_size, setting.frames, span=span))
    return torch.from_numpy(np.stack(frames, axis=1))


def equal_bits(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def contestants(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
    found = {"copy_": Contestant(copy)}
    for name, backend in our_backends(device).items():
        found[name] = Contestant(lambda inputs, backend=backend: simulate(inputs, backend), equal_bits, ours=True)
    if device == "cpu":
        found["events, then frames"] = Contestant(by_events, equal_bits)
    return found


def traffic(inputs: Inputs) -> Traffic:
    """The images read once and the frames written once; no operations for events, because few steps fire one."""
    steps = inputs.motion.steps(inputs.sensor_size, inputs.camera.latency_us).n_steps
    width, height = inputs.sensor_size
    return Traffic(size(inputs.images, inputs.out), OPERATIONS * int(steps.sum()) * width * height)


def case(name: str, setting: Setting, shape: Shape) -> Case:
    return Case(
        "camera",
        name,
        shape,
        inputs(setting),
        contestants,
        lambda inputs: simulate(inputs, "reference"),
        traffic,
        yardstick="tmkt native",
        cuda_shape=(1024, *shape[1:]),
        rank=2,
        small=(2, 6, 6),
    )


CASES = [
    case("28x28 to 34x34 frames", NMNIST, (16, 28, 28)),
    case("160x120 to 48x48 frames", PHOTOGRAPHS, (4, 120, 160)),
]
