"""Event recordings before anything is loaded: what a source of them answers, whatever they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tmkt_kernels import events as ev

from ...config import DataConfig
from ..cache import Entry


@dataclass(frozen=True)
class Recording:
    """One recording: its label, its name `class/id`, and its number in its source.

    image: index in the static set of the image that it is simulated from; None for a recording that is not.
    """

    label: int
    name: str
    index: int
    image: int | None = None

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]


class EventSource(Protocol):
    """A set of recordings, as `StaticSource` is one of images."""

    def recordings(self) -> list[Recording]:
        """All recordings. Raises UserError where a file is out of place or missing."""

    def frames(self, recording: Recording) -> np.ndarray:
        """[T, 2, H, W] of the configured size: int16 counts, or float32 where they are resized.

        Raises:
            UserError: the recording is damaged or has events beyond the sensor; the message names it.
        """

    def key(self, recordings: Sequence[Recording]) -> tuple[dict[str, Any], list[Entry]]:
        """What the cache finds their frames by: settings besides `config.data`'s sizes, and an entry for each."""


def to_frames(events: np.ndarray, sensor_size: tuple[int, int] | None, config: DataConfig) -> np.ndarray:
    """Frames [T, 2, H, W] of `config.size`; sensor_size None: as far as the events reach."""
    if sensor_size is None:
        sensor_size = (int(events["x"].max()) + 1, int(events["y"].max()) + 1)
    # Recordings of several sizes stand in one array: all are resized, or none.
    keep = config.size == sensor_size and config.events.sensor_size is not None
    return ev.to_frames(events, config.time_steps, sensor_size, None if keep else config.size)
