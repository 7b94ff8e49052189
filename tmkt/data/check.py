"""`tmkt data check`: reads every recording of a folder and names those that are damaged, missing or out of place."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from tmkt_kernels import events as ev

from ..config import Config
from ..errors import UserError
from ..progress import track
from .layouts import Problem, list_recordings
from .sources.events import Recording
from .sources.folder import FolderEvents
from .sources.images import StaticSource
from .sources.opening import open_folder, open_pair
from .twins import shown_image


class Report(NamedTuple):
    """Result of a check: numbers of recordings and classes read, the problems found, and further counts in words."""

    recordings: int
    classes: int
    problems: list[Problem]
    details: str = ""

    @property
    def summary(self) -> str:
        count = len(self.problems)
        found = "no problem" if count == 0 else f"{count} problem{'s' if count > 1 else ''}"
        return f"checked {self.recordings} recordings in {self.classes} classes{self.details}: {found}"


def check_folder(
    root: str | Path,
    *,
    config: Config | None = None,
    sensor_size: tuple[int, int] | None = None,
    expected: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Report:
    """Check the recordings under `root`.

    It names: files of 0 bytes, cut off, undecodable or of another extension; links that lead nowhere; events outside
    the sensor; time that steps back; empty class folders; duplicate recordings; and, if most recordings have the same
    duration, shorter ones. Without a sensor size, from the config or the header, no coordinate is too large.

    Args:
        config: adds what it states: the layout, the sensor, and the classes, to name unknown and missing ones.
            If it says which image a recording shows, recordings whose image has another class are named too.
        sensor_size: (width, height), overrides the config.
        expected: for each run whose recordings must all be present, their names.

    Raises:
        UserError: root is no folder of recordings, or config cannot be read.
    """
    if config and config.data.events.source == "tonic":
        raise UserError("--config: sets of tonic are no folders to check; `tmkt data prepare` reads every recording")
    data = (config or Config().replace(data__events__sensor_size=None)).data
    images, classes = open_pair(config) if config else (None, list_recordings(root, data.events).classes())
    source = open_folder(root, classes, data)
    stated = sensor_size or data.events.sensor_size
    problems = list(source.problems)
    first: dict[bytes, Recording] = {}
    durations: dict[Recording, int] = {}
    for recording in track(source.found, "checking"):
        file = source.files[recording.index]
        try:
            digest, durations[recording] = _check_recording(source, recording, stated)
        except (ValueError, OSError) as error:
            what = str(error).removeprefix(f"{file.path}: ")
            problems.append(Problem(file.path, f"({recording.name}) {what}" if file.interval_us else what))
            continue
        other = first.setdefault(digest, recording)
        if other is not recording:
            problems.append(Problem(file.path, f"holds the same events as {source.path(other)}; remove one of them"))
    problems += _too_short(source, durations)
    if images and data.static.exclude_twins != "none":
        problems += _wrong_classes(source, images)
    names = {recording.name for recording in source.found}
    for run, wanted in expected.items():
        problems += [Problem(Path(root) / n, f"is missing: {run} was made with it") for n in wanted if n not in names]
    return Report(len(source.found), len({r.label for r in source.found}), sorted(problems), _details(source.found))


def _details(recordings: Sequence[Recording]) -> str:
    """Return the least and the largest class, if they differ, and the sizes of the parts that the set lists."""
    sizes, parts = Counter(r.label for r in recordings).values(), Counter(r.part for r in recordings if r.part)
    of = f" of {min(sizes)} to {max(sizes)}" if len(set(sizes)) > 1 else ""
    return of + "".join(f", {parts[part]} listed to {part}" for part in parts)


def _check_recording(source: FolderEvents, recording: Recording, stated: tuple[int, int] | None) -> tuple[bytes, int]:
    """Return a digest of the recording's events, and its duration in us. Raises ValueError for any fault."""
    events, size = source.read(recording)
    if interval := source.files[recording.index].interval_us:
        _check_interval(events["t"], interval)
    if stated and source.config.events.window is None:
        size = stated
    if size is None:
        size = (int(events["x"].max()) + 1, int(events["y"].max()) + 1)
    ev.to_frames(events, 1, size, (1, 1))  # checks every event: inside the sensor, in order of time
    return sha256(events.tobytes()).digest(), int(events["t"][-1] - events["t"][0])


def _check_interval(t: np.ndarray, interval: tuple[int, int]) -> None:
    """Raise ValueError if a tenth of the time span or more has no events at its start or its end.

    A camera's noise fills a span of seconds, so that it then lies partly outside the file.
    """
    start, end = interval
    for side, us in (("start", int(t[0]) - start), ("end", end - int(t[-1]))):
        if us > 0.1 * (end - start):
            raise ValueError(
                f"has no events in the {us / 1e3:.0f} ms at the {side} of its time span, {start} to {end} us: the file "
                "is cut off, or the table of time spans is not its own"
            )


def _too_short(source: FolderEvents, durations: dict[Recording, int]) -> list[Problem]:
    """Find recordings that are too short. A file cut off between two records is valid by its format, but stands out if
    all others have the same duration."""
    if len(durations) < 20:
        return []
    low, usual, high = np.quantile(list(durations.values()), [0.2, 0.5, 0.9])
    if high - low > 0.05 * usual:  # durations in this set differ
        return []
    return [
        Problem(
            source.path(recording),
            f"lasts {us / 1e3:.0f} ms, the others {usual / 1e3:.0f} ms: it is cut off; fetch it again",
        )
        for recording, us in durations.items()
        if us < 0.9 * usual
    ]


def _wrong_classes(source: FolderEvents, images: StaticSource) -> list[Problem]:
    problems = []
    for recording in source.found:
        image, path = shown_image(recording, images, source.config.static), source.path(recording)
        if image is None:
            problems.append(Problem(path, "is of the wrong class, or the image of its class and name is missing"))
        elif image < len(images.labels) and images.labels[image] != recording.label:
            name = images.classes[images.labels[image]]
            problems.append(Problem(path, f"is of the wrong class: the image that it shows is of {name}"))
    return problems
