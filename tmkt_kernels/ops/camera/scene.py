"""What the kernels of the simulation get: displays, steps, cameras and seeds of a batch."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .motion import Steps
from .sensor import Camera

SENSOR_VALUES = 12


class Scene(NamedTuple):
    """B recordings before they are simulated.

    display: float32 [B, height, width], intensity plus dark, of all that the sensor sees (`Steps.size`).
    times: int32 [B, S, 3], shares: float32 [B, S, 3], count: int32 [B]: see `Steps`.
    sensor: float32 [B, 12]: thresholds of on and off events (log2 units), mismatch, refractory period (us), leak
        (log2 units per us), mean wait between background events of a pixel and of a hot pixel (us, times ln 2; inf for
        none), share below which a pixel is dead and from which it is hot, share of on events in the background,
        dimming, dark.
    seeds: int64 [B], 64 random bits each.
    width, height: of the sensor.
    """

    display: Tensor
    times: Tensor
    shares: Tensor
    count: Tensor
    sensor: Tensor
    seeds: Tensor
    width: int
    height: int


def sensor_values(camera: Camera) -> Tensor:
    """Return `Scene.sensor` of a batch of cameras."""
    per_unit = 1 / math.log(2)  # the kernels compute with the logarithm to base 2
    return torch.stack(
        [
            camera.threshold * per_unit,
            camera.threshold_off * per_unit,
            camera.mismatch,
            camera.refractory_us,
            camera.leak_rate * camera.threshold * (per_unit * 1e-6),
            math.log(2) * 1e6 / camera.noise_rate,
            math.log(2) * 1e6 / camera.hot_rate,
            camera.dead_share,
            1 - camera.hot_share,
            camera.noise_on_share,
            camera.noise_dimming,
            camera.dark,
        ],
        dim=1,
    ).float()


def scene(display: Tensor, steps: Steps, camera: Camera, seeds: Tensor, sensor_size: tuple[int, int]) -> Scene:
    """Return the scene on the device of `display`, intensities from 0 to 1."""
    device = display.device
    dark = camera.dark.float().to(device)[:, None, None]
    small = (steps.times, steps.shares, steps.count, sensor_values(camera), seeds)
    return Scene(display + dark, *(tensor.contiguous().to(device) for tensor in small), *sensor_size)
