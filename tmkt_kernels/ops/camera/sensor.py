"""The pixels of simulated event cameras: of one camera, or of a batch of them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from .limits import MOST_SAMPLES, whole
from .ranges import drawn

_SHARES = ("noise_on_share", "noise_dimming", "hot_share", "dead_share")
_RATES = ("leak_rate", "noise_rate", "hot_rate")
_MOST_RATE = 1e5  # events per second; times are whole microseconds
_LEAST = {"dark": 1e-6, "threshold": 0.01, "threshold_off": 0.01}
"""Smaller values would bring crossings within the rounding of float32."""


def _check(name: str, value: Any) -> float:
    """Return the field as a float; raise ValueError for one out of its range."""
    least, most = _LEAST.get(name, 0.0), 1.0 if name in _SHARES else _MOST_RATE if name in _RATES else math.inf
    expected = f"of {least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (least <= number <= most and math.isfinite(number)):
        raise ValueError(f"{name}: expected a finite number {expected}, got {value!r}")
    return number


@dataclass(frozen=True)
class SensorModel:
    """The pixels of a simulated event camera; the defaults are fitted to N-MNIST (docs/simulator.md).

    dark: intensity of a black pixel, relative to the range between black and white.
    threshold: contrast threshold of on events, in natural log units.
    mismatch: relative standard deviation of the thresholds, drawn for each pixel.
    latency_us: time constant of the photoreceptor's low-pass.
    refractory_us: dead time of a pixel after an event; the pixel then resets its reference.
    noise_rate: background events per pixel and second, a Poisson process.
    threshold_off: contrast threshold of off events; None for that of on events.
    leak_rate: on events per second that a pixel fires under constant light, because its reference sinks.
    noise_on_share: share of on events in the background, that of hot pixels included.
    noise_dimming: share of the background that bright light takes away: a white pixel has noise_rate times
        1 - noise_dimming, a black one noise_rate, and grey ones between.
    hot_share: share of the pixels that are hot; hot_rate: their background events per second, in place of noise_rate.
    dead_share: share of the pixels that never fire.

    Raises ValueError for a value out of range; the message names it.
    """

    dark: float = 0.14
    threshold: float = 0.24
    mismatch: float = 0.1
    latency_us: float = 6_200
    refractory_us: float = 950
    noise_rate: float = 0.35
    threshold_off: float | None = None
    leak_rate: float = 0.0
    noise_on_share: float = 0.98
    noise_dimming: float = 0.0
    hot_share: float = 0.0
    hot_rate: float = 0.0
    dead_share: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (name == "threshold_off" and value is None):
                _check(name, value)
        if self.hot_share + self.dead_share > 1:
            raise ValueError(f"hot_share + dead_share: expected 1 at most, got {self.hot_share + self.dead_share!r}")


RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "any": {
        "dark": (0.03, 0.3),
        "threshold": (0.12, 0.5),
        "threshold_off": (0.12, 0.5),
        "mismatch": (0.02, 0.2),
        "latency_us": (500, 15_000),
        "refractory_us": (100, 3_000),
        "noise_rate": (0.02, 3.0),
        "noise_on_share": (0.5, 1.0),
    },
    "nmnist": {},  # SensorModel's defaults
    "ncaltech101": {
        "dark": (0.26, 0.26),
        "threshold": (0.12, 0.12),
        "threshold_off": (0.107, 0.107),
        "refractory_us": (2_100, 2_100),
        # The one recording at hand does not determine these.
        "mismatch": (0.03, 0.2),
        "latency_us": (0, 1_000),
        "noise_rate": (0.2, 1.2),
    },
}
"""Ranges of `Camera.draw`, by name: wide ones, or those of a published set. Their reasons are in docs/simulator.md."""


@dataclass(frozen=True)
class Camera:
    """The pixels of B simulated cameras, one for each recording: the fields of `SensorModel` as float64 tensors [B].

    The tensors lie on the CPU, where a camera takes 104 bytes; `simulate_frames` moves them to its device.
    """

    dark: Tensor
    threshold: Tensor
    mismatch: Tensor
    latency_us: Tensor
    refractory_us: Tensor
    noise_rate: Tensor
    threshold_off: Tensor
    leak_rate: Tensor
    noise_on_share: Tensor
    noise_dimming: Tensor
    hot_share: Tensor
    hot_rate: Tensor
    dead_share: Tensor

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for a field of another shape or out of range; the message names it."""
        for field in fields(self):
            values = getattr(self, field.name)
            if not (isinstance(values, Tensor) and values.dtype == torch.float64 and values.device.type == "cpu"):
                got = f"{values.dtype} on {values.device}" if isinstance(values, Tensor) else type(values).__name__
                raise TypeError(f"{field.name}: expected a float64 tensor [B] on the CPU, got {got}")
            if values.shape != self.dark.shape or values.dim() != 1:
                raise ValueError(
                    f"{field.name}: expected shape [B] as dark's {list(self.dark.shape)}, got {list(values.shape)}"
                )
            for value in () if values.numel() == 0 else (values.min().item(), values.max().item()):
                _check(field.name, value)
        if (self.hot_share + self.dead_share > 1).any():
            raise ValueError("hot_share + dead_share: expected 1 at most for each camera")

    @classmethod
    def of(cls, sensor: SensorModel, batch: int) -> Self:
        """Return `batch` cameras with the pixels of one sensor. Their thresholds and noise still differ by seed."""
        batch = whole("batch", batch, 0, MOST_SAMPLES)
        values = asdict(sensor)
        if values["threshold_off"] is None:
            values["threshold_off"] = values["threshold"]
        return cls(**{name: torch.full((batch,), float(value), dtype=torch.float64) for name, value in values.items()})

    @classmethod
    def draw(
        cls,
        batch: int,
        ranges: str | Mapping[str, tuple[float, float]] = "any",
        *,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Draw `batch` cameras.

        ranges: "any" (wide), "nmnist", "ncaltech101", or (lowest, highest) by field. Shares are uniform in their range,
        and so is a range from 0 on; all else is uniform in the logarithm. A field without a range keeps `SensorModel`'s
        default; threshold_off without one equals the threshold.

        Raises ValueError for an unknown name, or a range that is not within the field's limits.
        """
        values = drawn(asdict(SensorModel()), ranges, RANGES, batch, generator, uniform=_SHARES)
        if values["threshold_off"] is None:
            values["threshold_off"] = values["threshold"]
        return cls(**values)

    def __len__(self) -> int:
        return len(self.dark)

    def __getitem__(self, samples: slice | Tensor) -> Self:
        return type(self)(**{field.name: getattr(self, field.name)[samples] for field in fields(self)})
