"""Recordings simulated from images, by the DVS model of docs/simulator.md."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..ops.arguments import checked_size
from ..ops.camera.display import intensities
from ..ops.camera.motion import N_MNIST_FILL, N_MNIST_PATH, Motion
from ..ops.camera.random_numbers import checked_seed, sample_seeds
from ..ops.camera.recording import record
from ..ops.camera.scene import moving_images, video
from ..ops.camera.sensor import Camera, SensorModel
from .arrays import EVENT_DTYPE

SIMULATOR_VERSION = 2  # of the model; a cache of simulated recordings is valid for one version only

N_MNIST_SENSOR = SensorModel()


def _check_numbers(positive: dict[str, float], never_negative: dict[str, float]) -> None:
    for name, value in (positive | never_negative).items():
        if not (math.isfinite(value) and (value > 0 or (value == 0 and name in never_negative))):
            kind = "positive" if name in positive else "zero or positive"
            raise ValueError(f"{name}: expected a finite number, {kind}; got {value!r}")


def simulate_saccades(
    image: np.ndarray,
    *,
    sensor_size: tuple[int, int] = (34, 34),
    path: Sequence[tuple[float, float]] = N_MNIST_PATH,
    saccade_us: float = 81_000,
    fixation_us: float = 24_000,
    scale: float | None = None,
    dark: float = SensorModel.dark,
    threshold: float = SensorModel.threshold,
    mismatch: float = SensorModel.mismatch,
    latency_us: float = SensorModel.latency_us,
    refractory_us: float = SensorModel.refractory_us,
    noise_rate: float = SensorModel.noise_rate,
    seed: int,
) -> np.ndarray:
    """Simulate an event camera's recording of an image that moves in front of it along saccades.

    A pixel follows log(intensity + dark) through a low-pass and fires where it has moved by the
    pixel's threshold since its last event, at the time found by linear interpolation (as ESIM,
    Rebecq et al. 2018, and v2e, Hu et al. 2021, arXiv 2006.07722). The image is resampled once to the
    scale of the sensor's pixels, which then sample it bilinearly, at steps of at most 1/8 pixel; beyond
    its edge, the outermost pixels continue.

    The defaults are fitted to N-MNIST (Orchard et al. 2015), three saccades in 0.315 s; figures in
    docs/simulator.md. It shows digits dark on bright: `simulate_saccades(255 - digit, seed=0)` for
    an MNIST image, because otherwise on and off are swapped.

    Args:
        image: [H, W] intensities, uint8 or float from 0 to 1.
        sensor_size: (width, height) in pixels.
        path: points (x, y) that the image's centre visits in turn, in sensor pixels relative to the
            sensor's centre, y pointing down. N points make N - 1 saccades.
        saccade_us: duration of each movement, which starts and ends smoothly (minimum jerk).
        fixation_us: rest after each.
        scale: sensor pixels per image pixel; None shows the image at 28/34 of the sensor's side, as
            N-MNIST. The image is interpolated linearly above 1, and averaged over areas below.
        dark, threshold, mismatch, latency_us, refractory_us, noise_rate: the sensor, see `SensorModel`.
        seed: 0 to 2^64 - 1; equal seeds give equal bits, by arithmetic that IEEE 754 fixes.

    Returns:
        [N] array of `EVENT_DTYPE`, sorted by time, from t = 0.

    Raises:
        ValueError: an argument is out of range, or there are more than 2^26 events; the message names it.
    """
    sensor = SensorModel(dark, threshold, mismatch, latency_us, refractory_us, noise_rate)
    _check_numbers({"saccade_us": saccade_us}, {"fixation_us": fixation_us})
    fill = _fill(image, sensor_size, scale, N_MNIST_FILL)
    motion = Motion.saccades(1, path=path, saccade_us=saccade_us, fixation_us=fixation_us, fill=fill)
    return simulate_recording(image, motion, Camera.of(sensor, 1), sensor_size=sensor_size, seed=seed)


def simulate_drift(
    image: np.ndarray,
    *,
    sensor_size: tuple[int, int] = (128, 128),
    amplitude: float = 4.0,
    loops: int = 6,
    loop_us: float = 200_000,
    scale: float | None = None,
    sensor: SensorModel = N_MNIST_SENSOR,
    seed: int,
) -> np.ndarray:
    """Simulate an image that drifts in front of the camera in loops, along a square that stands on its corner.

    In the manner of CIFAR10-DVS (Li et al. 2017), whose images moved in a repeated closed loop of straight
    paths at one speed. Amplitude, loops and duration are chosen, not fitted, and the sensor is that of N-MNIST,
    because no recording of CIFAR10-DVS was at hand.

    Args:
        image: [H, W] intensities, uint8 or float from 0 to 1.
        sensor_size: (width, height) in pixels.
        amplitude: distance from the loop's centre to its corners, in sensor pixels.
        loops: number of loops.
        loop_us: duration of one loop.
        scale: sensor pixels per image pixel; None fills the sensor's shorter side.
        sensor: the camera's pixels.

    For the seed, the result and the errors, see `simulate_saccades`.
    """
    _check_numbers({"amplitude": amplitude, "loop_us": loop_us}, {})
    fill = _fill(image, sensor_size, scale, 1.0)
    motion = Motion.drift(1, amplitude=amplitude, loops=loops, loop_us=loop_us, fill=fill)
    return simulate_recording(image, motion, Camera.of(sensor, 1), sensor_size=sensor_size, seed=seed)


def simulate_video(
    frames: np.ndarray,
    times_us: Sequence[float] | np.ndarray,
    *,
    sensor: SensorModel = N_MNIST_SENSOR,
    seed: int,
) -> np.ndarray:
    """Simulate an event camera's recording of a video with the sensor's pixels.

    Args:
        frames: [N, H, W] intensities, uint8 or float from 0 to 1, N of 2 or more. Between two frames, the logarithm of
            a pixel's intensity is interpolated linearly, as in ESIM and v2e.
        times_us: [N] times of the frames, increasing.
        sensor: the camera's pixels.

    For the seed, the result and the errors, see `simulate_saccades`. Events begin at times_us[0].
    """
    seeds = sample_seeds(checked_seed(seed), 1)
    shown = _intensities(frames, "frames: expected shape [N, H, W]", 3)
    times = np.asarray(times_us, np.float64)
    if times.shape != shown.shape[:1] or len(times) < 2 or not (np.diff(times) > 0).all() or not times[0] >= 0:
        raise ValueError(f"times_us: expected {len(shown)} growing times from 0 on, two or more; got {times_us!r}")
    begin = math.floor(times[0])
    events = record(video(shown, torch.from_numpy(np.floor(times)) - begin, Camera.of(sensor, 1), seeds), EVENT_DTYPE)
    events["t"] += begin
    return events


def simulate_recording(
    image: np.ndarray, motion: Motion, camera: Camera, *, sensor_size: tuple[int, int], seed: int
) -> np.ndarray:
    """Simulate the recording of an image by any camera, along any path: `simulate_frames`' events.

    Args:
        image: [H, W] intensities, uint8 or float from 0 to 1.
        motion, camera: of one recording, as `Motion.handheld(1)` and `Camera.draw(1)`.
        sensor_size: (width, height) in pixels.

    For the seed, the result and the errors, see `simulate_saccades`.
    """
    if len(motion) != 1 or len(camera) != 1:
        raise ValueError(f"motion and camera: expected those of one recording, got {len(motion)} and {len(camera)}")
    seeds = sample_seeds(checked_seed(seed), 1)
    shown = _intensities(image, "image: expected one channel, shape [H, W]", 2)
    return record(
        moving_images(shown[None], motion, camera, checked_size("sensor_size", sensor_size), seeds), EVENT_DTYPE
    )


def _fill(image: np.ndarray, sensor_size: tuple[int, int], scale: float | None, default: float) -> float:
    """Return the share of the sensor's side that an image at `scale` takes; None: the default."""
    if scale is None:
        return default
    _check_numbers({"scale": scale}, {})
    width, height = checked_size("sensor_size", sensor_size)
    rows, columns = np.asarray(image).shape if np.ndim(image) == 2 and np.size(image) else (1, 1)
    return scale / min(width / columns, height / rows)


def _intensities(image: np.ndarray, expected: str, ndim: int) -> Tensor:
    """Return float32 intensities from 0 to 1."""
    image = np.asarray(image)
    if image.ndim != ndim or image.size == 0:
        raise ValueError(f"{expected}, got shape {list(image.shape)}")
    if image.dtype == np.uint8:
        return intensities(torch.tensor(image))
    if image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:
        return torch.tensor(image, dtype=torch.float32)
    name = expected.partition(":")[0]
    raise ValueError(
        f"{name}: expected uint8, or floats from 0 to 1, got {image.dtype} from {image.min()} to {image.max()}"
    )
