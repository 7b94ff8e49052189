"""Cameras and motions drawn from a normal distribution of their parameters, which `fitting.py` finds."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from tmkt_kernels import Camera, Motion

LEGS = 3
DURATION_US = 300_000.0
"""Of the simulated recordings. Frames do not depend on it, because the fitted times would change by the same factor."""


class Parameter(NamedTuple):
    """A fitted quantity: where its search begins, how widely, and its bounds. In the logarithm if `log`."""

    name: str
    start: float
    spread: float
    low: float
    high: float
    log: bool = True


PARAMETERS = (
    Parameter("rest_share", 0.25, 0.15, 0.0, 0.6, log=False),  # of the time between two legs, at the end of each
    Parameter("fill", 0.95, 0.15, 0.5, 1.6),
    Parameter("threshold", 0.22, 0.35, 0.05, 1.0),
    Parameter("off_ratio", 1.0, 0.2, 0.3, 3.0),  # threshold of off events, in that of on events
    Parameter("dark", 0.14, 1.0, 0.005, 2.0),
    Parameter("mismatch", 0.1, 0.05, 0.0, 0.4, log=False),
    Parameter("latency_us", 2_000.0, 0.8, 10.0, 20_000.0),
    Parameter("refractory_us", 1_000.0, 1.0, 10.0, 20_000.0),
    Parameter("noise_rate", 0.3, 1.0, 0.001, 20.0),
    Parameter("noise_on_share", 0.5, 0.25, 0.0, 1.0, log=False),
)
_POINTS = 2 * (LEGS + 1)  # coordinates of the path, which come first
_AMPLITUDE = 0.09  # spread of the points at the start of the search, as a share of the sensor's smaller side


@dataclass(frozen=True)
class FittedCameras:
    """Cameras and motions like those of some recordings.

    mean and spread: float64 [P] of a normal distribution of the path's points, x and y of each in sensor pixels, then
    of `PARAMETERS`.
    """

    mean: Tensor
    spread: Tensor

    @staticmethod
    def before(sensor_size: tuple[int, int]) -> "FittedCameras":
        """Return the distribution with which a search begins."""
        starts = [0.0] * _POINTS + [math.log(p.start) if p.log else p.start for p in PARAMETERS]
        spreads = [_AMPLITUDE * min(sensor_size)] * _POINTS + [p.spread for p in PARAMETERS]
        return FittedCameras(*(torch.tensor(values, dtype=torch.float64) for values in (starts, spreads)))

    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw the parameters of `batch` cameras, float64 [batch, P]."""
        return self.mean + self.spread * torch.randn(batch, len(self.mean), dtype=torch.float64, generator=generator)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Motion, Camera]:
        """Draw `batch` motions and cameras."""
        return cameras(self.sample(batch, generator))


def cameras(drawn: Tensor) -> tuple[Motion, Camera]:
    """Return the motions and cameras with parameters float64 [B, P], see `FittedCameras`, within their bounds."""
    values = {}
    for parameter, column in zip(PARAMETERS, drawn[:, _POINTS:].unbind(1), strict=True):
        value = column.exp() if parameter.log else column
        values[parameter.name] = value.clamp(parameter.low, parameter.high)
    rest, fill, ratio = (values.pop(name) for name in ("rest_share", "fill", "off_ratio"))
    values["threshold_off"] = (values["threshold"] * ratio).clamp_min(0.01)
    leg = torch.full_like(rest, DURATION_US / LEGS)
    path = drawn[:, :_POINTS].reshape(len(drawn), LEGS + 1, 2)
    motion = Motion(path, leg * (1 - rest), leg * rest, torch.ones(len(drawn), dtype=torch.bool), fill)
    return motion, replace(Camera.draw(len(drawn), {}), **values)
