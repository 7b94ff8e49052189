"""Recordings simulated from images, by the DVS model of docs/simulator.md."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .arrays import EVENT_DTYPE, checked_size, compiled

N_MNIST_PATH = ((-2.75, -1.6), (-0.95, 3.75), (2.8, -1.7), (-2.75, -1.6))
"""The triangle of N-MNIST's three saccades: image centre relative to the sensor's, in pixels, y pointing down."""

SIMULATOR_VERSION = 1  # of the model; a cache of simulated recordings is valid for one version only

_SMALLEST_DARK = 1e-300  # the logarithm of csrc/events/random.h takes normal numbers only
_MOST_LOOPS = 100_000  # each has four legs, and the limit is 10^7 steps
_N_MNIST_FILL = 28 / 34  # share of the sensor's side that an N-MNIST digit image takes


def _check_numbers(positive: dict[str, float], never_negative: dict[str, float]) -> None:
    for name, value in (positive | never_negative).items():
        if not (math.isfinite(value) and (value > 0 or (value == 0 and name in never_negative))):
            kind = "positive" if name in positive else "zero or positive"
            raise ValueError(f"{name}: expected a finite number, {kind}; got {value!r}")


@dataclass(frozen=True)
class SensorModel:
    """The pixels of a simulated event camera; the defaults are fitted to N-MNIST (docs/simulator.md).

    dark: intensity of a black pixel, relative to the range between black and white.
    threshold: contrast threshold in natural log units, for on and off.
    mismatch: relative standard deviation of the thresholds, drawn for each pixel.
    latency_us: time constant of the photoreceptor's low-pass.
    refractory_us: dead time of a pixel after an event; the pixel then resets its reference.
    noise_rate: background events per pixel and second, a Poisson process; 98 % are on events.

    Raises ValueError for a value out of range; the message names it. The simulators refuse inputs that would make more
    than 2^26 events, take more than 10^7 steps of 1/8 pixel or last longer than 2^53 us. Ctrl-C stops them.
    """

    dark: float = 0.14
    threshold: float = 0.24
    mismatch: float = 0.1
    latency_us: float = 6_200
    refractory_us: float = 950
    noise_rate: float = 0.35

    def __post_init__(self) -> None:
        values = asdict(self)
        positive = {name: values.pop(name) for name in ("dark", "threshold")}
        _check_numbers(positive, values)
        if self.dark < _SMALLEST_DARK:
            raise ValueError(f"dark: expected {_SMALLEST_DARK} or more, got {self.dark!r}")

    def compiled(self, seed: int) -> Any:
        """Return the arguments of the compiled module, with the seed of thresholds and noise."""
        if not (isinstance(seed, int | np.integer) and 0 <= seed < 2**64):
            raise ValueError(f"seed: expected an integer from 0 to 2^64 - 1, got {seed!r}")
        return compiled().SensorParams(**asdict(self), seed=int(seed))


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
    Rebecq et al. 2018, and v2e, Hu et al. 2021, arXiv 2006.07722). The image is sampled bilinearly,
    at steps of at most 1/8 pixel; beyond its edge, the outermost pixels continue.

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
            N-MNIST. Below 1 the image is averaged over areas first.
        dark, threshold, mismatch, latency_us, refractory_us, noise_rate: the sensor, see `SensorModel`.
        seed: 0 to 2^64 - 1; equal seeds give equal bits, by arithmetic that IEEE 754 fixes.

    Returns:
        [N] array of `EVENT_DTYPE`, sorted by time, from t = 0.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """
    sensor = SensorModel(dark, threshold, mismatch, latency_us, refractory_us, noise_rate)
    params = sensor.compiled(seed)
    motion = {"path": path, "leg_us": saccade_us, "rest_us": fixation_us, "scale": scale, "smooth": True}
    return _move(image, sensor_size, params, _N_MNIST_FILL, motion)


def simulate_drift(
    image: np.ndarray,
    *,
    sensor_size: tuple[int, int] = (128, 128),
    amplitude: float = 4.0,
    loops: int = 6,
    loop_us: float = 200_000,
    scale: float | None = None,
    sensor: SensorModel = SensorModel(),
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
    if not (isinstance(loops, int | np.integer) and 1 <= loops <= _MOST_LOOPS):
        raise ValueError(f"loops: expected a whole number from 1 to {_MOST_LOOPS}, got {loops!r}")
    _check_numbers({"amplitude": amplitude, "loop_us": loop_us}, {})
    params = sensor.compiled(seed)
    corners = [(0.0, -amplitude), (amplitude, 0.0), (0.0, amplitude), (-amplitude, 0.0)]
    path = [*corners * int(loops), corners[0]]
    motion = {"path": path, "leg_us": loop_us / 4, "rest_us": 0.0, "scale": scale, "smooth": False}
    return _move(image, sensor_size, params, 1.0, motion)


def simulate_video(
    frames: np.ndarray,
    times_us: Sequence[float] | np.ndarray,
    *,
    sensor: SensorModel = SensorModel(),
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
    params = sensor.compiled(seed)
    frames = _intensities(frames, "frames: expected shape [N, H, W]", 3)
    times = np.asarray(times_us, np.float64)
    if times.shape != frames.shape[:1] or len(times) < 2 or not (np.diff(times) > 0).all() or not times[0] >= 0:
        raise ValueError(f"times_us: expected {len(frames)} growing times from 0 on, two or more; got {times_us!r}")
    return compiled().simulate_video(frames, times.tolist(), params).view(EVENT_DTYPE)


def _move(
    image: np.ndarray, sensor_size: tuple[int, int], params: Any, fill: float, motion: dict[str, Any]
) -> np.ndarray:
    """Run the simulator on a moving image; `fill` is the image's share of the sensor's side if there is no scale."""
    image = _intensities(image, "image: expected one channel, shape [H, W]", 2)
    sensor_size = checked_size("sensor_size", sensor_size)
    if motion["scale"] is None:
        motion["scale"] = fill * min(sensor_size[0] / image.shape[1], sensor_size[1] / image.shape[0])
    _check_numbers({"saccade_us": motion["leg_us"], "scale": motion["scale"]}, {"fixation_us": motion["rest_us"]})
    points = np.asarray(motion["path"], np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2 or not np.isfinite(points).all():
        raise ValueError(f"path: expected two or more points (x, y), got {motion['path']!r}")
    motion = {**motion, "path": points.tolist()}
    return compiled().simulate_motion(image, sensor_size, params, **motion).view(EVENT_DTYPE)


def _intensities(image: np.ndarray, expected: str, ndim: int) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != ndim or image.size == 0:
        raise ValueError(f"{expected}, got shape {list(image.shape)}")
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image / 255.0)
    if image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:
        return np.ascontiguousarray(image, np.float64)
    name = expected.partition(":")[0]
    raise ValueError(
        f"{name}: expected uint8, or floats from 0 to 1, got {image.dtype} from {image.min()} to {image.max()}"
    )
