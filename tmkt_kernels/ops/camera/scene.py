"""What the kernels of the simulation get: displays, steps, cameras and seeds of a batch."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .display import display
from .limits import LONGEST_US, MOST_EVENTS, MOST_PIXELS, MOST_SENSOR_PIXELS, MOST_SHRUNK, at_most
from .motion import Motion, Steps, follow
from .sensor import Camera

SENSOR_VALUES = 12


class Scene(NamedTuple):
    """B recordings before they are simulated.

    display: float32 [B, height, width], intensity plus dark, of all that the sensor sees (`Steps.size`).
    times: int32 [B, S, 3], shares: float32 [B, S, 3], n_steps: int32 [B]: see `Steps`.
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
    n_steps: Tensor
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


def moving_images(images: Tensor, motion: Motion, camera: Camera, sensor_size: tuple[int, int], seeds: Tensor) -> Scene:
    """Return the scene of images [B, h, w] from 0 to 1, each at the scale at which it fills its share of the sensor."""
    width, height = sensor_size
    at_most(width * height, MOST_SENSOR_PIXELS, "sensor_size: got # pixels", "simulate a smaller sensor")
    scale = motion.fill * min(width / images.shape[2], height / images.shape[1])
    shrinks = 1 / (scale * max(images.shape[1:]))
    at_most(shrinks, MOST_SHRUNK, "fill: the image takes 1 / # of a pixel of the sensor", "show it larger")
    steps = motion.steps(sensor_size, camera.latency_us)
    _check_noise(camera, width * height, motion.duration_us())
    return _scene(display(images, scale, steps.corner, steps.size), steps, camera, seeds, sensor_size)


def video(frames: Tensor, times_us: Tensor, camera: Camera, seeds: Tensor) -> Scene:
    """Return the scene of one video, frames [N, h, w] from 0 to 1 at whole microseconds [N], float64, from 0 on.

    Between two frames, the logarithm of a pixel's intensity is interpolated linearly.
    """
    n, height, width = frames.shape
    at_most(times_us[-1:], LONGEST_US, "the simulation lasts # us", "are its times in microseconds?")
    at_most(frames.numel(), MOST_PIXELS, "frames: got # pixels", "simulate the video in parts")
    _check_noise(camera, width * height, times_us[-1:])
    # One below the other, each a view. What a view has beyond its frame counts for nothing, as no frame is shifted.
    shown = torch.nn.functional.pad(frames.reshape(1, n * height, width), (0, 1, 0, 1))
    corner = torch.arange(n, dtype=torch.float64)[None, :] * (height * (width + 1))
    duration = times_us.diff(prepend=times_us[:1])[None]
    shares = torch.zeros(1, n, 3)
    shares[..., 2] = follow(duration, camera.latency_us)
    times = torch.stack([corner, times_us[None] - duration, duration], dim=-1).int()
    steps = Steps(times, shares, torch.tensor([n], dtype=torch.int32), torch.zeros(1, 2), (width + 1, n * height + 1))
    return _scene(shown, steps, camera, seeds, (width, height))


def _check_noise(camera: Camera, pixels: int, duration_us: Tensor) -> None:
    per_pixel = camera.noise_rate * (1 - camera.hot_share) + camera.hot_rate * camera.hot_share  # and second
    remedy = "it is events per pixel and second, and times are in microseconds"
    at_most(
        per_pixel * pixels * 1e-6 * duration_us, MOST_EVENTS, "noise_rate: it makes about # background events", remedy
    )


def _scene(shown: Tensor, steps: Steps, camera: Camera, seeds: Tensor, sensor_size: tuple[int, int]) -> Scene:
    """Return the scene of what is shown, to which it adds each camera's `dark` in place."""
    device = shown.device
    dark = camera.dark.float().to(device)[:, None, None]
    small = (steps.times, steps.shares, steps.n_steps, sensor_values(camera), seeds)
    times, shares, n_steps, sensor, keys = (tensor.contiguous().to(device) for tensor in small)
    return Scene(shown.add_(dark), times, shares, n_steps, sensor, keys, *sensor_size)
