"""Event recordings before anything is loaded: files of a folder, drawn strokes, or simulations of static images."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
import torch

from tmkt_kernels import events as ev

from ...config import Config, DataConfig, StaticConfig
from ...errors import UserError
from ...progress import track
from ...seeding import recording_seed
from ..bundled import ClassMap
from ..cache import Entry, FrameCache
from ..layouts import LAYOUTS, LabelledFile, Problem
from ..pairs import EventFrames
from ..readers import READER_VERSION, READERS, columns_file, read_recording
from ..strokes import STROKES, simulate_strokes
from .images import StaticSource


@dataclass(frozen=True)
class Recording:
    """One recording: its label, its name `class/id`, and its number in its source."""

    label: int
    name: str
    index: int

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]


class EventSource(Protocol):
    """A set of recordings, as `StaticSource` is one of images.

    knows_images: `shown_image` has answers. made_of_images: recordings are made of the images that they show.
    """

    knows_images: bool
    made_of_images: bool

    def recordings(self) -> list[Recording]:
        """All recordings. Raises UserError where a file is out of place or missing."""

    def frames(self, recording: Recording) -> np.ndarray:
        """[T, 2, H, W] of the configured size: int16 counts, or float32 where they are resized.

        Raises:
            UserError: the recording is damaged or has events beyond the sensor; the message names it.
        """

    def shown_image(self, recording: Recording) -> int | None:
        """Index in the static set of the image that a recording shows; it may lie beyond the set. None: no image."""

    def identity(self, recording: Recording) -> Entry:
        """What a recording is to the cache."""

    def settings(self, recordings: Sequence[Recording]) -> dict[str, Any]:
        """What the frames depend on besides the recordings and `config.data`'s sizes, for the cache."""


def open_events(config: Config, images: StaticSource, classes: ClassMap, root: str | Path | None = None) -> EventSource:
    """The recordings of `config`, or those in another folder `root`.

    Args:
        images: what they show, or are simulated from.
        classes: what their class folders mean.

    Raises:
        UserError: the folder is none, or a setting is missing.
    """
    if config.data.events.source == "simulated":
        return SimulatedEvents(images, config.data, config.seed)
    return file_events(root or config.data.events.root, classes, config.data, images)


def file_events(
    root: str | Path,
    classes: ClassMap,
    config: DataConfig,
    images: StaticSource | None = None,
    *,
    every_class: bool = True,
) -> "FolderEvents":
    """The recordings under `root` in files, see `FolderEvents`; of pen strokes if `config` says so."""
    return _file_source(config)(root, classes, config, images, every_class=every_class)


def classes_of_folders(root: str | Path, config: DataConfig) -> ClassMap:
    """The classes that the folders of recordings under `root` name."""
    return LAYOUTS[config.events.layout](root, _file_source(config).suffixes, "recordings").classes()


def _file_source(config: DataConfig) -> "type[FolderEvents]":
    return StrokeEvents if config.events.source == "strokes" else FolderEvents


class FolderEvents:
    """Recordings in files, with the folders of one of `LAYOUTS`.

    found: the recordings, sorted; files: where each lies; problems: all that is out of place or missing.

    Args:
        images: the static set that the recordings may show, for `shown_image`.
        every_class: every class must be there (for training); evaluation may see only some.

    Raises:
        UserError: root is no folder, or holds nothing of the layout.
    """

    suffixes: Collection[str] = tuple(READERS)
    made_of_images = False

    def __init__(
        self,
        root: str | Path,
        classes: ClassMap,
        config: DataConfig,
        images: StaticSource | None = None,
        *,
        every_class: bool = True,
    ) -> None:
        self.config, self.images = config, images
        self.knows_images = config.static.exclude_twins != "none"
        folders = LAYOUTS[config.events.layout](root, self.suffixes, "recordings")
        self.problems, labels = list(folders.problems), {name: i for i, name in enumerate(classes.names)}
        # A class whose every file is a problem is there all the same.
        present = {classes.events.get(problem.folder) for problem in self.problems}
        self.found: list[Recording] = []
        self.files: list[LabelledFile] = []
        unrecognised: dict[str, Path] = {}
        for file in folders.files:
            if file.folder not in classes.events:
                unrecognised.setdefault(file.folder, file.path.parent)
            elif name := classes.events[file.folder]:
                present.add(name)
                self.found.append(Recording(labels[name], f"{file.folder}/{file.id}", len(self.files)))
                self.files.append(file)
        self.problems += [
            Problem(path, f"is none of the classes {_shorten(classes.events)}") for path in unrecognised.values()
        ]
        missing = [name for name in classes.names if name not in present]
        if missing and every_class:
            what = f"has no folder for the class(es) {_shorten(missing)} of the static set"
            self.problems.append(Problem(Path(root), what))

    def recordings(self) -> list[Recording]:
        """All recordings. Raises UserError where a folder or a file is out of place, empty or missing."""
        if self.problems:
            others = len(self.problems) - 1
            more = f" (and {others} more; `tmkt data check` lists them)" if others else ""
            raise UserError(f"recordings: {self.problems[0]}{more}")
        return self.found

    def path(self, recording: Recording) -> Path:
        return self.files[recording.index].path

    def read(self, recording: Recording) -> tuple[np.ndarray, tuple[int, int] | None]:
        """Events of a recording within its interval and the window, and the sensor size that config or header state.

        Raises:
            ValueError: the file is damaged, contradicts the stated sensor, or nothing is left of it.
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
            raise ValueError("no event lies in its time span and data.events.window")
        return events, size

    def _recorded(self, recording: Recording) -> ev.RecordedEvents:
        """What the file holds. One of several recordings is read once for all of them, which stand in a row."""
        path = self.path(recording)
        if self.files[recording.index].interval_us is None:
            return read_recording(path)
        return _read_shared(path, path.stat().st_mtime_ns)

    def frames(self, recording: Recording) -> np.ndarray:
        try:
            return _to_frames(*self.read(recording), self.config)
        except (ValueError, OSError) as error:
            path = str(self.path(recording))
            reason = str(error) if path in str(error) else f"{path}: {error}"
            raise UserError(f"recording {reason}") from error

    def shown_image(self, recording: Recording) -> int | None:
        return self._find_image(recording)

    @cached_property
    def _find_image(self) -> Callable[[Recording], int | None]:
        return _image_finder(self.config.static, self.images)

    def identity(self, recording: Recording) -> Entry:
        file = self.files[recording.index]
        return Entry.of(file.path, file.interval_us)

    def settings(self, recordings: Sequence[Recording]) -> dict[str, Any]:
        columns = {columns_file(self.path(recording).parent) for recording in recordings}
        return {
            "versions": [READER_VERSION, ev.SIMULATOR_VERSION],
            "window": self.config.events.window,
            "columns": sorted(Entry.of(file) for file in columns if file),
        }


class StrokeEvents(FolderEvents):
    """Drawings of pen strokes as a simulated camera sees them being written, see `strokes.py`."""

    suffixes = STROKES

    def _recorded(self, recording: Recording) -> ev.RecordedEvents:
        """The same noise each time, whatever the run's seed: a drawing has one recording."""
        size = self.config.events.sensor_size
        if size is None:
            raise ValueError("data.events.sensor_size: simulated recordings need a width and a height, null was given")
        seed = crc32(recording.name.encode())
        return ev.RecordedEvents(simulate_strokes(self.path(recording), sensor_size=size, seed=seed), size)


SIMULATORS: dict[str, Callable[..., np.ndarray]] = {"saccades": ev.simulate_saccades, "drift": ev.simulate_drift}


class SimulatedEvents:
    """A simulated event camera before each image of a static set; a recording's id and index are its image's."""

    knows_images = made_of_images = True

    def __init__(self, images: StaticSource, config: DataConfig, seed: int) -> None:
        """Raises UserError where a setting is missing."""
        events = config.events
        if events.test_per_class is None:
            raise UserError("data.events.test_per_class: simulated recordings need a number, null was given")
        if events.sensor_size is None:
            raise UserError("data.events.sensor_size: simulated recordings need a width and a height, null was given")
        if events.test_root:
            raise UserError("data.events.test_root: simulated recordings lie in no folder; leave it empty")
        self.images, self.config, self.seed, self.sensor_size = images, config, seed, events.sensor_size

    def recordings(self) -> list[Recording]:
        images = self.images
        return [Recording(int(y), f"{images.classes[y]}/{i}", i) for i, y in enumerate(images.labels) if y >= 0]

    def frames(self, recording: Recording) -> np.ndarray:
        image = self.images.read(recording.index)[0].numpy()
        if self.config.events.invert:
            image = 255 - image
        simulate, seed = SIMULATORS[self.config.events.simulator], recording_seed(self.seed, recording.index)
        return _to_frames(simulate(image, sensor_size=self.sensor_size, seed=seed), self.sensor_size, self.config)

    def shown_image(self, recording: Recording) -> int:
        return recording.index

    def identity(self, recording: Recording) -> Entry:
        return Entry(recording.name, f"{crc32(self.images.read(recording.index).numpy().tobytes()):08x}")

    def settings(self, recordings: Sequence[Recording]) -> dict[str, Any]:
        events, static = self.config.events, self.config.static
        return {
            "simulator": [events.simulator, events.invert, ev.SIMULATOR_VERSION, self.seed],
            "images": [static.source, static.root, static.kwargs],
        }


def load_events(source: EventSource, recordings: Sequence[Recording], config: DataConfig, what: str) -> EventFrames:
    """Frames of some recordings of a source, in memory or in a file of the cache; `what` labels the progress bar.

    Raises:
        UserError: see `EventSource.frames`, and where the cache cannot be written.
    """
    width, height = config.size
    shape = (config.time_steps, 2, height, width)

    def read() -> Iterator[np.ndarray]:
        for recording in track(recordings, what):
            yield source.frames(recording)

    if not recordings:
        frames = torch.empty(config.time_steps, 0, 2, height, width)
    elif config.cache is None:
        frames = torch.from_numpy(np.stack(list(read()), axis=1))
    else:
        settings = {
            **source.settings(recordings),
            "time_steps": config.time_steps,
            "size": config.size,
            "sensor_size": config.events.sensor_size,
        }
        entries = [source.identity(recording) for recording in recordings]
        frames = torch.from_numpy(FrameCache(config.cache).frames(what, settings, entries, read(), shape))
    labels = torch.tensor([recording.label for recording in recordings], dtype=torch.int64)
    return EventFrames(frames, labels, tuple(recording.name for recording in recordings))


def _image_finder(config: StaticConfig, images: StaticSource | None) -> Callable[[Recording], int | None]:
    """Which image a recording shows, by `data.static.exclude_twins`.

    "nmnist" holds for MNIST in its original order: id - 1. An index may lie beyond the set. "name": the image of the
    same class and file name.

    Raises:
        UserError: the static set is not of that kind; when called, that an id is no number.
    """
    if config.exclude_twins == "nmnist":
        if config.source != "MNIST" or not config.kwargs.get("train", True):
            raise UserError("data.static.exclude_twins: nmnist is about the training images of MNIST, source: MNIST")
        return _nmnist_image
    if config.exclude_twins == "name":
        if images is None or images.files is None:
            raise UserError("data.static.exclude_twins: name needs images with file names, source: folder or cep_dvs")
        places = enumerate(zip(images.labels, images.files, strict=True))
        index = {(int(label), path.stem): i for i, (label, path) in places}
        return lambda recording: index.get((recording.label, recording.id))
    return lambda recording: None


def _nmnist_image(recording: Recording) -> int:
    if not recording.id.isdecimal() or int(recording.id) < 1:
        raise UserError(f"recording {recording.name}: exclude_twins: nmnist needs ids that are numbers from 1 on")
    return int(recording.id) - 1


@lru_cache(maxsize=1)
def _read_shared(path: Path, modified: int) -> ev.RecordedEvents:
    return read_recording(path)


def _to_frames(events: np.ndarray, sensor_size: tuple[int, int] | None, config: DataConfig) -> np.ndarray:
    """Frames [T, 2, H, W] of `config.size`; sensor_size None: as far as the events reach."""
    if sensor_size is None:
        sensor_size = (int(events["x"].max()) + 1, int(events["y"].max()) + 1)
    # Recordings of several sizes stand in one array: all are resized, or none.
    keep = config.size == sensor_size and config.events.sensor_size is not None
    return ev.to_frames(events, config.time_steps, sensor_size, None if keep else config.size)


def _shorten(names: Collection[str]) -> str:
    first = list(names)[:12]
    return ", ".join(first) + (f", ... ({len(names)} in all)" if len(names) > len(first) else "")
