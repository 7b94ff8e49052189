"""`tmkt data check`: reads every recording of a folder and names each that is damaged, missing or out of place."""

from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tmkt_kernels import events as ev

from ..config import Config, EventsConfig
from ..progress import track
from .layouts import LAYOUTS, Problem
from .prepare import open_pair
from .readers import READERS
from .shipped import ClassMap
from .sources.events import Recording, read_events, suffixes, survey
from .sources.images import StaticSource
from .splits import twin_indices


class Report(NamedTuple):
    """What a check found: how many recordings of how many classes were read, and what is wrong."""

    recordings: int
    classes: int
    problems: list[Problem]

    @property
    def summary(self) -> str:
        count = len(self.problems)
        found = "no problem" if count == 0 else f"{count} problem{'s' if count > 1 else ''}"
        return f"checked {self.recordings} recordings in {self.classes} classes: {found}"


def check_folder(
    root: str | Path,
    *,
    config: Config | None = None,
    sensor_size: tuple[int, int] | None = None,
    expected: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Report:
    """Check the recordings under `root`.

    Named are: files of 0 bytes, cut off, undecodable or of another extension; links that lead nowhere; events
    beyond the sensor; time that runs backwards; empty class folders; recordings that are there twice, and, where
    most last equally long, those that are shorter. Without a sensor size, stated or in the header,
    no coordinate is too large.

    Args:
        config: adds what it states: the layout, the sensor, the classes (unknown and missing ones are named), and
            where it says which image a recording shows, a recording whose image is of another class.
        sensor_size: (width, height), before what the config says.
        expected: for each run whose recordings must all be there, their names.

    Raises:
        UserError: root is no folder of recordings, or config cannot be read.
    """
    events = config.data.events if config else EventsConfig(sensor_size=None)
    source, classes = open_pair(config) if config else (None, _classes_found(root))
    recordings, problems = survey(root, classes, layout=events.layout, suffixes=suffixes(events))
    stated = sensor_size or (events.sensor_size if config else None)
    first: dict[bytes, Recording] = {}
    durations: dict[Recording, int] = {}
    for recording in track(recordings, "checking"):
        assert recording.path is not None
        try:
            seen, durations[recording] = _check_recording(recording, events, stated)
        except (ValueError, OSError) as error:
            what = str(error).removeprefix(f"{recording.path}: ")
            problems.append(Problem(recording.path, f"({recording.name}) {what}" if recording.span else what))
            continue
        other = first.setdefault(seen, recording)
        if other is not recording:
            problems.append(Problem(recording.path, f"holds the same events as {other.path}; remove one of them"))
    problems += _too_short(durations)
    if config and source:
        problems += _wrong_classes(recordings, source, config.data.static.exclude_twins)
    found = {recording.name for recording in recordings}
    for run, names in expected.items():
        problems += [Problem(Path(root) / n, f"is missing: {run} was made with it") for n in names if n not in found]
    return Report(len(recordings), len({r.label for r in recordings}), sorted(problems))


def _check_recording(recording: Recording, events: EventsConfig, stated: tuple[int, int] | None) -> tuple[bytes, int]:
    """A digest of the recording's events, and how long it lasts in us. Raises ValueError for whatever is wrong."""
    array, size = read_events(recording, events)
    if stated and events.window is None:
        size = stated
    if size is None:
        size = (int(array["x"].max()) + 1, int(array["y"].max()) + 1)
    ev.to_frames(array, 1, size, (1, 1))  # looks at every event: within the sensor, in order of time
    return sha256(array.tobytes()).digest(), int(array["t"][-1] - array["t"][0])


def _too_short(durations: dict[Recording, int]) -> list[Problem]:
    """A file cut off between two records is whole by its format; where all last equally long, it stands out."""
    if len(durations) < 20:
        return []
    low, usual, high = np.quantile(list(durations.values()), [0.2, 0.5, 0.9])
    if high - low > 0.05 * usual:  # recordings of this set differ in length
        return []
    return [
        Problem(
            recording.path, f"lasts {us / 1e3:.0f} ms, the others {usual / 1e3:.0f} ms: it is cut off; fetch it again"
        )
        for recording, us in durations.items()
        if recording.path and us < 0.9 * usual
    ]


def _classes_found(root: str | Path) -> ClassMap:
    listing = LAYOUTS["folders"](root, READERS, "recordings")
    return ClassMap.same(sorted({item.folder for item in listing.items} | {p.folder for p in listing.problems}))


def _wrong_classes(recordings: list[Recording], source: StaticSource, kind: str) -> list[Problem]:
    if kind == "none":
        return []
    problems = []
    for recording, twin in zip(recordings, twin_indices(recordings, source, kind), strict=True):
        assert recording.path is not None
        if twin < 0:
            problems.append(
                Problem(recording.path, "is of the wrong class, or the image of its class and name is missing")
            )
        elif twin < len(source.labels) and source.labels[twin] != recording.label:
            shown = source.classes[source.labels[twin]]
            problems.append(Problem(recording.path, f"is of the wrong class: the image that it shows is of {shown}"))
    return problems
