"""Event recordings before loading: the interface of their sources, whatever they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tmkt_kernels import events as ev

from ...config import DataConfig
from ..cache import Entry

FRAMES_VERSION = 1  # part of every cache key; increase it when the same events give other frames


@dataclass(frozen=True)
class Recording:
    """One recording: its label, its name `class/id`, and its number in its source.

    image: index in the static set of the image that it is simulated from; None if it is not simulated. part: "train" or
    "test", if a list that comes with the set says so.
    """

    label: int
    name: str
    index: int
    image: int | None = None
    part: str = ""

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]


class EventSource(Protocol):
    """A set of recordings, the counterpart of `StaticSource` for images."""

    def recordings(self) -> list[Recording]:
        """Return all recordings. Raises UserError if a file is out of place or missing."""

    def frames(self, recording: Recording) -> np.ndarray:
        """Return [T, 2, H, W] of the configured size: int16 counts, or float32 if they are resized.

        Raises:
            UserError: the recording is damaged or has events outside the sensor; the message names it.
        """

    def key(self, recordings: Sequence[Recording]) -> tuple[dict[str, Any], list[Entry]]:
        """Return the cache key of their frames: settings besides `config.data`'s sizes, and an entry per recording."""


def to_frames(events: np.ndarray, sensor_size: tuple[int, int] | None, config: DataConfig) -> np.ndarray:
    """Bin events to frames [T, 2, H, W] of `config.size`; sensor_size None: as far as the events reach."""
    if sensor_size is None:
        sensor_size = (int(events["x"].max()) + 1, int(events["y"].max()) + 1)
    # Recordings of several sizes share one array, so either all are resized, or none.
    keep = config.size == sensor_size and config.events.sensor_size is not None
    return ev.to_frames(events, config.time_steps, sensor_size, None if keep else config.size)
