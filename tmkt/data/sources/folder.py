"""Recordings in files, of event cameras or of pen strokes, which a simulated camera watches."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from tmkt_kernels import events as ev

from ...config import DataConfig
from ...errors import UserError
from ..bundled import ClassMap
from ..cache import Entry
from ..layouts import LabelledFile, Problem, list_recordings
from ..readers import READER_VERSION, columns_file, read_recording, read_shared
from ..strokes import simulate_strokes
from .events import Recording, to_frames


class FolderEvents:
    """Recordings in files, in the folders of one of `LAYOUTS`.

    found: the recordings, sorted; files: the path of each; problems: all that is out of place or missing.

    Args:
        classes: meaning of the class folders.
        every_class: require every class (for training); evaluation may have only some.

    Raises:
        UserError: root is no folder, or holds nothing in this layout.
    """

    def __init__(self, root: str | Path, classes: ClassMap, config: DataConfig, *, every_class: bool = True) -> None:
        self.config = config
        folders = list_recordings(root, config.events)
        self.problems, labels = list(folders.problems), {name: i for i, name in enumerate(classes.names)}
        # A class is present even if all of its files are problems.
        present = {classes.events.get(problem.folder) for problem in self.problems}
        self.found: list[Recording] = []
        self.files: list[LabelledFile] = []
        unrecognised: dict[str, Path] = {}
        for file in folders.files:
            if file.folder not in classes.events:
                unrecognised.setdefault(file.folder, file.path.parent)
            elif name := classes.events[file.folder]:
                present.add(name)
                own = f"{file.folder}/{file.id}"
                self.found.append(Recording(labels[name], own, len(self.files), part=file.part))
                self.files.append(file)
        self.problems += [
            Problem(path, f"is none of the classes {_shorten(classes.events)}") for path in unrecognised.values()
        ]
        missing = [name for name in classes.names if name not in present]
        if missing and every_class:
            what = f"has no folder for the class(es) {_shorten(missing)} of the static set"
            self.problems.append(Problem(Path(root), what))

    def recordings(self) -> list[Recording]:
        """Return all recordings. Raises UserError if a folder or a file is out of place, empty or missing."""
        if self.problems:
            others = len(self.problems) - 1
            more = f" (and {others} more; `tmkt data check` lists them)" if others else ""
            raise UserError(f"recordings: {self.problems[0]}{more}")
        return self.found

    def path(self, recording: Recording) -> Path:
        return self.files[recording.index].path

    def read(self, recording: Recording) -> tuple[np.ndarray, tuple[int, int] | None]:
        """Return a recording's events within its interval and the window, and the sensor size of config or header.

        Raises:
            ValueError: the file is damaged, contradicts the stated sensor, or has no events left.
        """
        config, interval = self.config.events, self.files[recording.index].interval_us
        events, size = self._recorded(recording)
        if size and config.sensor_size and size != config.sensor_size:
            raise ValueError(
                f"its header says {size[0]}x{size[1]}, data.events.sensor_size {config.sensor_size[0]}x"
                f"{config.sensor_size[1]}; correct it, or give null to go by the header"
            )
        size = config.sensor_size or size
        if interval:
            events = events[(events["t"] >= interval[0]) & (events["t"] < interval[1])]
        if config.window:
            if size and ((events["x"] >= size[0]) | (events["y"] >= size[1])).any():
                raise ValueError(f"has events beyond the sensor of {size[0]} x {size[1]}; check sensor_size")
            x, y, width, height = config.window
            inside = (events["x"] >= x) & (events["x"] < x + width) & (events["y"] >= y) & (events["y"] < y + height)
            events, size = events[inside].copy(), (width, height)
            events["x"] -= x
            events["y"] -= y
        if len(events) == 0:
            span = f", {interval[0]} to {interval[1]} us," if interval else ""
            raise ValueError(f"no event lies in its time span{span} and data.events.window")
        return events, size

    def _recorded(self, recording: Recording) -> ev.RecordedEvents:
        """Return the file's content, which may be several recordings."""
        file = self.files[recording.index]
        return read_recording(file.path) if file.interval_us is None else read_shared(file.path)

    def frames(self, recording: Recording) -> np.ndarray:
        try:
            events, sensor_size = self.read(recording)
            return to_frames(events, sensor_size, self.config)
        except (ValueError, OSError) as error:
            path = str(self.path(recording))
            reason = str(error) if path in str(error) else f"{path}: {error}"
            raise UserError(f"recording {reason}") from error

    def key(self, recordings: Sequence[Recording]) -> tuple[dict[str, Any], list[Entry]]:
        columns = {columns_file(self.path(recording).parent) for recording in recordings}
        settings = {
            "versions": [READER_VERSION, ev.SIMULATOR_VERSION],
            "window": self.config.events.window,
            "columns": sorted(Entry.of(file) for file in columns if file),
        }
        files = [self.files[recording.index] for recording in recordings]
        return settings, [Entry.of(file.path, file.interval_us) for file in files]


class StrokeEvents(FolderEvents):
    """Drawings of pen strokes, recorded by a simulated camera while they are written, see `strokes.py`."""

    def _recorded(self, recording: Recording) -> ev.RecordedEvents:
        """Simulate with the same noise whatever the run's seed, so that a drawing has one recording."""
        size = self.config.events.sensor_size
        if size is None:
            raise ValueError("data.events.sensor_size: simulated recordings need a width and a height, null was given")
        seed = crc32(recording.name.encode())
        return ev.RecordedEvents(simulate_strokes(self.path(recording), sensor_size=size, seed=seed), size)


def _shorten(names: Collection[str]) -> str:
    first = list(names)[:12]
    return ", ".join(first) + (f", ... ({len(names)} in all)" if len(names) > len(first) else "")
