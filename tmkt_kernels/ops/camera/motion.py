"""Paths of images in front of the camera, and the steps in which the simulation follows them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from .limits import LONGEST_US, MOST_LEGS, MOST_PIXELS, MOST_SAMPLES, MOST_STEPS, at_most, whole
from .ranges import drawn

N_MNIST_PATH = ((-2.75, -1.6), (-0.95, 3.75), (2.8, -1.7), (-2.75, -1.6))
"""The triangle of N-MNIST's three saccades: image centre relative to the sensor's, in pixels, y pointing down."""
N_MNIST_FILL = 28 / 34
"""Share of the sensor's side that an image of N-MNIST takes."""
N_CALTECH101_PATH = ((-4.0, -4.0), (-1.1, 3.3), (3.1, -4.2), (-3.0, -4.0))
"""The triangle of N-Caltech101's three saccades, which take 100 ms each and follow each other without a rest."""
N_CALTECH101_FILL = 1.047
"""Its recordings are cut to the pixels that the image covers at every moment, and so the image is larger than they."""

RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "any": {"amplitude": (1.5, 6.0), "leg_us": (40_000, 150_000), "rest_us": (0, 40_000), "fill": (0.7, 1.1)},
}
"""Ranges of `Motion.draw`, by name. Their reasons are in docs/simulator.md."""

Array = np.ndarray
_MAX_STEP = 0.125  # pixels that the image may move between two samples of the intensity


class Steps(NamedTuple):
    """The steps of B recordings, each from its initial view, step 0 of no duration.

    times: int32 [B, S, 3]: the view's upper left pixel in the display [height, width], flat; begin and duration, us.
    shares: float32 [B, S, 3]: part of a pixel by which the view lies right of and below that pixel; share of the way
        to the new light that the photoreceptor goes in the step.
    n_steps: int32 [B], number of steps of each; entries beyond it are without meaning.
    corner: float64 [B, 2], upper left corner (x, y) of the display relative to the image's centre, in sensor pixels.
    size: (width, height) of the display.
    """

    times: Tensor
    shares: Tensor
    n_steps: Tensor
    corner: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class Motion:
    """The motions of B images, each along a path of P points, in float64 on the CPU.

    path: [B, P, 2], the image's centre relative to the sensor's (x, y), in sensor pixels, y pointing down.
    leg_us: [B], duration from one point to the next; rest_us: [B], rest after it.
    smooth: bool [B]: each leg starts and ends at rest (minimum jerk), or has one speed.
    fill: [B], share of the sensor's side that the image takes, in the direction where it takes more.
    """

    path: Tensor
    leg_us: Tensor
    rest_us: Tensor
    smooth: Tensor
    fill: Tensor

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for a field of another shape or out of range; the message names it."""
        for field in fields(self):
            values = getattr(self, field.name)
            dtype = torch.bool if field.name == "smooth" else torch.float64
            if not (isinstance(values, Tensor) and values.dtype == dtype and values.device.type == "cpu"):
                got = f"{values.dtype} on {values.device}" if isinstance(values, Tensor) else type(values).__name__
                raise TypeError(f"{field.name}: expected a tensor of {dtype} on the CPU, got {got}")
        path = self.path
        if path.dim() != 3 or path.shape[1] < 2 or path.shape[2] != 2:
            raise ValueError(f"path: expected shape [B, P, 2], P of 2 or more, got {list(path.shape)}")
        if not path.isfinite().all():
            raise ValueError("path: expected finite points")
        for name, least in (("leg_us", "positive"), ("rest_us", "zero or positive"), ("fill", "positive")):
            values = getattr(self, name)
            if values.shape != path.shape[:1]:
                raise ValueError(f"{name}: expected shape [B] = [{len(path)}], got {list(values.shape)}")
            good = values.isfinite() & ((values > 0) | (values == 0 if name == "rest_us" else False))
            if not good.all():
                raise ValueError(f"{name}: expected finite numbers, {least}; got {values[~good][0].item()!r}")
        if self.smooth.shape != path.shape[:1]:
            raise ValueError(f"smooth: expected shape [B] = [{len(path)}], got {list(self.smooth.shape)}")

    @classmethod
    def along(
        cls, batch: int, path: Sequence[Sequence[float]], *, leg_us: float, rest_us: float, smooth: bool, fill: float
    ) -> Self:
        """Return `batch` times the same motion; path: points (x, y), the rest one number each, see `Motion`."""
        batch = whole("batch", batch, 0, MOST_SAMPLES)
        try:
            points = torch.tensor([[float(x), float(y)] for x, y in path], dtype=torch.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            points = torch.empty(0, 2, dtype=torch.float64)
        if len(points) < 2 or not points.isfinite().all():
            raise ValueError(f"path: expected two or more points (x, y), got {path!r}")
        numbers = {"leg_us": leg_us, "rest_us": rest_us, "fill": fill}
        filled = {name: torch.full((batch,), float(value), dtype=torch.float64) for name, value in numbers.items()}
        return cls(points.repeat(batch, 1, 1), smooth=torch.full((batch,), smooth), **filled)

    @classmethod
    def saccades(
        cls,
        batch: int,
        *,
        path: Sequence[Sequence[float]] = N_MNIST_PATH,
        saccade_us: float = 81_000,
        fixation_us: float = 24_000,
        fill: float = N_MNIST_FILL,
    ) -> Self:
        """Return the saccades of N-MNIST, or along another path, each followed by a fixation."""
        return cls.along(batch, path, leg_us=saccade_us, rest_us=fixation_us, smooth=True, fill=fill)

    @classmethod
    def drift(
        cls, batch: int, *, amplitude: float = 4.0, loops: int = 6, loop_us: float = 200_000, fill: float = 1.0
    ) -> Self:
        """Return loops along a square that stands on its corner, in the manner of CIFAR10-DVS (Li et al. 2017).

        amplitude: distance from the loop's centre to its corners, in sensor pixels.
        """
        loops = whole("loops", loops, 1, MOST_LEGS // 4)
        corners = [(0.0, -amplitude), (amplitude, 0.0), (0.0, amplitude), (-amplitude, 0.0)]
        path = [*corners * loops, corners[0]]
        return cls.along(batch, path, leg_us=loop_us / 4, rest_us=0.0, smooth=False, fill=fill)

    @classmethod
    def handheld(
        cls,
        batch: int,
        *,
        amplitude: float = 3.0,
        duration_us: float = 300_000,
        fill: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Draw `batch` smooth random paths, as of a camera in a hand; none is fitted.

        Each is the sum of eight oscillations of 0.5 to 10 Hz in random directions, of amplitudes that fall with the
        frequency. amplitude: root mean square of the distance from the path's centre, in sensor pixels.
        """
        batch = whole("batch", batch, 0, MOST_SAMPLES)
        oscillations, points = 8, 33
        low, high = math.log(0.5), math.log(10.0)
        frequency = (
            low + (high - low) * torch.rand(batch, oscillations, dtype=torch.float64, generator=generator)
        ).exp()
        phase = 2 * math.pi * torch.rand(batch, 2, oscillations, dtype=torch.float64, generator=generator)
        weight = torch.randn(batch, 2, oscillations, dtype=torch.float64, generator=generator) / frequency[:, None]
        seconds = torch.linspace(0, duration_us * 1e-6, points, dtype=torch.float64)
        angle = 2 * math.pi * frequency[:, None, None] * seconds[:, None] + phase[:, :, None]
        path = (weight[:, :, None] * angle.sin()).sum(-1).transpose(1, 2)  # [B, P, 2]
        path = path - path.mean(1, keepdim=True)
        path = path * (amplitude / path.square().sum(-1).mean(1).sqrt())[:, None, None]
        numbers = {"leg_us": duration_us / (points - 1), "rest_us": 0.0, "fill": fill}
        filled = {name: torch.full((batch,), float(value), dtype=torch.float64) for name, value in numbers.items()}
        return cls(path, smooth=torch.zeros(batch, dtype=torch.bool), **filled)

    @classmethod
    def draw(
        cls,
        batch: int,
        ranges: str | Mapping[str, tuple[float, float]] = "any",
        *,
        legs: int = 3,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Draw `batch` motions along random paths.

        ranges: "any", or (lowest, highest) by name: amplitude (points lie uniformly in a disc of this radius, sensor
        pixels), leg_us, rest_us and fill. Amplitude and leg_us are uniform in the logarithm, unless their range begins
        at 0; rest_us and fill are uniform. legs: of each path. Each motion is smooth, or of one speed, by an even
        chance.

        Raises ValueError for an unknown name, or a range that is no pair of growing finite numbers from 0 on.
        """
        defaults = {"amplitude": 4.0, "leg_us": 81_000, "rest_us": 24_000, "fill": 1.0}
        values = drawn(defaults, ranges, RANGES, batch, generator, uniform=("rest_us", "fill"))
        legs = whole("legs", legs, 1, MOST_LEGS)
        points = torch.rand(batch, legs + 1, 2, dtype=torch.float64, generator=generator)
        radius = values.pop("amplitude")[:, None] * points[..., 0].sqrt()
        angle = 2 * math.pi * points[..., 1]
        path = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
        smooth = torch.rand(batch, generator=generator) < 0.5
        return cls(path, smooth=smooth, **values)

    @staticmethod
    def preset(batch: int, name: str = "any", *, generator: torch.Generator | None = None) -> "Motion":
        """Return `batch` motions by name.

        name: "any" (`draw`), "nmnist" and "ncaltech101" (`saccades`), "cifar10dvs" (`drift`) or "handheld". The
        generator is for "any" and "handheld".

        Raises ValueError for an unknown name; the message lists the names.
        """
        if name not in MOTIONS:
            raise ValueError(f"name: expected one of {', '.join(MOTIONS)}; got {name!r}")
        return MOTIONS[name](batch, generator)

    def __len__(self) -> int:
        return len(self.path)

    def __getitem__(self, samples: slice | Tensor) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[samples] for field in fields(self)})

    def duration_us(self) -> Tensor:
        """Return the duration [B] of each recording, whole microseconds, int64."""
        legs = self.path.shape[1] - 1
        duration = legs * (self.leg_us + self.rest_us)
        at_most(duration, LONGEST_US, "the simulation lasts # us", "are its times in microseconds?")
        return duration.floor().long()

    def steps(self, sensor_size: tuple[int, int], latency_us: Tensor) -> Steps:
        """Return the steps, of at most 1/8 pixel each, in which the simulation follows the motion.

        latency_us: [B], of each camera.

        Raises ValueError for a motion that would take unbounded time or memory; the message names the limit.
        """
        # In numpy, which takes half of torch's time for small arrays.
        path, leg_us, rest_us, smooth = (x.numpy() for x in (self.path, self.leg_us, self.rest_us, self.smooth))
        if len(self) > 1 and all((x == x[:1]).all() for x in (path, leg_us, rest_us, smooth)):
            path, leg_us, rest_us, smooth = path[:1], leg_us[:1], rest_us[:1], smooth[:1]  # one for all cameras
        legs = _legs(path, leg_us[:, None], rest_us[:, None], smooth[:, None], len(self))
        self.duration_us()  # raises if they are too long
        n_steps = 1 + (legs.moves + legs.rests).sum(1).astype(np.int64)
        # All steps in one array, one motion after the other, because some have several times as many as others.
        initial = n_steps.cumsum() - n_steps
        later = np.ones(n_steps.sum(), np.bool_)
        later[initial] = False
        x, y = (np.repeat(-path[:, 0, axis], n_steps) for axis in (0, 1))
        end = np.zeros(len(later))
        x[later], y[later], end[later] = _follow_path(legs)
        begin = np.roll(end, 1)
        begin[initial] = 0.0
        duration = end - begin
        if (duration[later] < 1).any():
            raise ValueError(
                "a step of the motion takes less than 1 us: are the times in microseconds, and is the path in sensor "
                "pixels?"
            )
        return _steps((x, y), begin, duration, latency_us, n_steps, sensor_size)


MOTIONS: dict[str, Callable[[int, torch.Generator | None], Motion]] = {
    "any": lambda batch, generator: Motion.draw(batch, generator=generator),
    "nmnist": lambda batch, _: Motion.saccades(batch),
    "ncaltech101": lambda batch, _: Motion.saccades(
        batch, path=N_CALTECH101_PATH, saccade_us=100_000, fixation_us=0, fill=N_CALTECH101_FILL
    ),
    "cifar10dvs": lambda batch, _: Motion.drift(batch),
    "handheld": lambda batch, generator: Motion.handheld(batch, generator=generator),
}
"""Motions of `Motion.preset`, by name: random ones, or those of a published set. See docs/simulator.md."""


class _Legs(NamedTuple):
    """The legs of M motions, each an array [M, P - 1]: where they begin (x, y) and lead to, relative to there; when
    they begin and end, rest included; durations; whether they are smooth; number of steps while moving and resting."""

    here: tuple[Array, Array]
    way: tuple[Array, Array]
    begin: Array
    end: Array
    leg_us: Array
    rest_us: Array
    smooth: Array
    moves: Array
    rests: Array


def _legs(path: Array, leg_us: Array, rest_us: Array, smooth: Array, batch: int) -> _Legs:
    """Return the legs of motions; all but path are [M, 1]. batch: number of cameras that see the motions."""
    pace = np.where(smooth, 1.305, 1.0)  # the longest step of a leg over the mean one
    way = np.diff(path, axis=1)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        fastest = pace * np.sqrt(np.square(way).sum(-1))
        moves = np.maximum(np.ceil(fastest / _MAX_STEP), 1.0)
        rests = np.ceil(rest_us / (leg_us / moves))
        rests = np.where(rest_us < 1.0, 0.0, rests)  # the leg's last step takes it in
        total = (moves + rests).sum(1)
    remedy = "is the path in sensor pixels, and are the times in microseconds?"
    at_most(total, MOST_STEPS, "the motion takes # steps of 1/8 pixel, rests included", remedy)
    together = batch * total.max(initial=0.0)
    at_most(together, MOST_STEPS, "the motions take # steps of 1/8 pixel together, rests included", remedy)
    number = np.arange(moves.shape[1])
    begin, end = number * (leg_us + rest_us), (number + 1) * (leg_us + rest_us)
    leg_us, rest_us, smooth = (np.broadcast_to(values, moves.shape) for values in (leg_us, rest_us, smooth))
    here = path[:, :-1]
    return _Legs(
        (here[..., 0], here[..., 1]), (way[..., 0], way[..., 1]), begin, end, leg_us, rest_us, smooth, moves, rests
    )


def _follow_path(legs: _Legs) -> tuple[Array, Array, Array]:
    """Return the view's x and y, relative to a resting image, and the whole microsecond at the end of each step.

    Of all steps but the initial ones: [N], one leg after the other, one motion after the other.
    """
    counts = (legs.moves + legs.rests).astype(np.int64).ravel()

    def each(values: Array) -> Array:
        return np.repeat(values.ravel(), counts)

    k = 1.0 + np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)  # number of the step in its leg
    move, rest, smooth = each(legs.moves), each(legs.rests), each(legs.smooth)
    number = np.minimum(k / move, 1.0)
    # Steps last longer where a smooth leg is slow, 5/3 of the mean at its ends and 2/3 in its middle.
    centred = 2.0 * number - 1.0
    share = np.where(smooth, number + ((centred * centred * centred + 1.0) / 2.0 - number) / 3.0, number)
    minimum_jerk = share * share * share * (10.0 + share * (-15.0 + 6.0 * share))  # Flash and Hogan 1985
    way = np.where(smooth, minimum_jerk, share)
    x, y = (-(each(here) + way * each(there)) for here, there in zip(legs.here, legs.way, strict=True))

    rest_share = np.maximum(k - move, 0.0) / np.maximum(rest, 1.0)
    end = each(legs.begin) + share * each(legs.leg_us) + rest_share * each(legs.rest_us)
    return x, y, np.floor(np.where(k == move + rest, each(legs.end), end))  # no rounding adds up


def _steps(
    offset: tuple[Array, Array],
    begin: Array,
    duration: Array,
    latency_us: Tensor,
    n_steps: Array,
    sensor_size: tuple[int, int],
) -> Steps:
    """Return the steps of views at `offset` (x, y), relative to a resting image.

    All arrays but n_steps [M] have the steps of one motion after the other. latency_us: [B]; M may be 1, for one motion
    that all cameras see.
    """
    B, M, S = len(latency_us), len(n_steps), int(n_steps.max(initial=1))
    initial = n_steps.cumsum() - n_steps
    whole = [np.floor(values) for values in offset]
    base = [np.minimum.reduceat(values, initial) for values in whole] if M else [np.empty(0)] * 2
    columns, rows = (values - np.repeat(least, n_steps) for values, least in zip(whole, base, strict=True))
    width, height = (n + int(v.max(initial=0)) + 1 for n, v in zip(sensor_size, (columns, rows), strict=True))
    at_most(B * width * height, MOST_PIXELS, "what the cameras see has # pixels", "simulate fewer at once")

    places = np.arange(len(begin)) + np.repeat(np.arange(M) * S - initial, n_steps)
    times, shares = np.zeros((M * S, 3), np.int32), np.zeros((M * S, 3), np.float32)
    times[:, 1] = LONGEST_US
    for column, values in enumerate((rows * width + columns, begin, duration)):
        times[places, column] = values
    for axis in (0, 1):
        shares[places, axis] = offset[axis] - whole[axis]
    if M == B:
        shares[places, 2] = follow(torch.from_numpy(duration), latency_us.repeat_interleave(torch.from_numpy(n_steps)))
    each_shares = torch.from_numpy(shares).view(M, S, 3)
    if M < B:
        each_shares = each_shares.repeat(B, 1, 1)
        each_shares[..., 2] = follow(torch.from_numpy(duration), latency_us[:, None])
    corner = torch.from_numpy(np.stack(base, axis=1) - np.array(sensor_size) / 2)
    return Steps(
        torch.from_numpy(times).view(M, S, 3).expand(B, -1, -1),
        each_shares,
        torch.from_numpy(n_steps.astype(np.int32)).expand(B),
        corner.expand(B, -1),
        (width, height),
    )


def follow(duration_us: Tensor, latency_us: Tensor) -> Tensor:
    """Return the share of the way to new light that a photoreceptor goes in a step: implicit Euler, without exp."""
    return (duration_us / (duration_us + latency_us)).nan_to_num(1.0)
