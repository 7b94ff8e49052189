"""Event recordings as frames: read from files, or simulated from static images."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from tmkt_kernels import events as ev

from ...config import DataConfig, EventsConfig
from ...errors import UserError
from ...progress import track
from ...seeding import recording_seed
from ..cache import Entry, FrameCache
from ..layouts import LAYOUTS, Problem
from ..readers import READER_VERSION, READERS, columns_file, read_recording
from ..shipped import ClassMap
from ..strokes import STROKES, simulate_strokes
from .images import StaticSource


@dataclass(frozen=True)
class Recording:
    """One recording: its label, its name, `class/id` (for a simulated one, id is the image's index), and its place.

    span: first time and the one after the last, in us, where the file holds several recordings.
    """

    label: int
    name: str
    path: Path | None = None
    span: tuple[int, int] | None = None

    @property
    def id(self) -> str:
        return self.name.rpartition("/")[2]


def survey(
    root: str | Path,
    classes: ClassMap | Sequence[str],
    *,
    layout: str = "folders",
    every_class: bool = True,
    suffixes: Collection[str] = READERS,
) -> tuple[list[Recording], list[Problem]]:
    """The recordings under `root`, sorted, with their labels, and everything that is out of place or missing.

    Args:
        classes: the names of the folders in the order of the labels, or a map.
        layout: one of `LAYOUTS`.
        every_class: every class must be there (for training); evaluation may see only some.
        suffixes: what the files end with.

    Raises:
        UserError: root is no folder, or holds nothing of the layout.
    """
    classes = classes if isinstance(classes, ClassMap) else ClassMap.same(classes)
    listing = LAYOUTS[layout](root, suffixes, "recordings")
    problems, labels = list(listing.problems), {name: i for i, name in enumerate(classes.names)}
    # A class whose every file is a problem is there all the same.
    seen = {classes.events.get(problem.folder) for problem in problems}
    recordings: list[Recording] = []
    strange: dict[str, Path] = {}
    for item in listing.items:
        if item.folder not in classes.events:
            strange.setdefault(item.folder, item.path.parent)
        elif name := classes.events[item.folder]:
            seen.add(name)
            recordings.append(Recording(labels[name], f"{item.folder}/{item.id}", item.path, item.span))
    problems += [Problem(path, f"is none of the classes {_shorten(classes.events)}") for path in strange.values()]
    missing = [name for name in classes.names if name not in seen]
    if missing and every_class:
        problems.append(Problem(Path(root), f"has no folder for the class(es) {_shorten(missing)} of the static set"))
    return recordings, problems


def find_recordings(
    root: str | Path,
    classes: ClassMap | Sequence[str],
    *,
    layout: str = "folders",
    every_class: bool = True,
    suffixes: Collection[str] = READERS,
) -> list[Recording]:
    """The recordings under `root`, as `survey`, where nothing is out of place.

    Raises:
        UserError: root is no folder, a folder is no known class, is empty or missing, or holds another file.
    """
    recordings, problems = survey(root, classes, layout=layout, every_class=every_class, suffixes=suffixes)
    if problems:
        more = f" (and {len(problems) - 1} more; `tmkt data check` lists them)" if len(problems) > 1 else ""
        raise UserError(f"recordings: {problems[0]}{more}")
    return recordings


def load_recordings(recordings: Sequence[Recording], config: DataConfig, what: str) -> Tensor:
    """Read recordings into frames [T, N, 2, H, W], int16 counts (float32 where they are resized).

    Raises:
        UserError: a file is damaged or has events beyond the sensor; the message names it.
    """

    def read() -> Iterator[np.ndarray]:
        for recording in track(recordings, what):
            yield _read_frames(recording, config)

    entries = [Entry.of(r.path, r.span) for r in recordings if r.path] if config.cache else []
    columns = {columns_file(r.path.parent) for r in recordings if r.path} if config.cache else set()
    settings = {
        "versions": [READER_VERSION, ev.SIMULATOR_VERSION],
        "window": config.events.window,
        "columns": sorted(Entry.of(file) for file in columns if file),
    }
    return _stack(read(), entries, settings, config, what)


def simulate_recordings(
    source: StaticSource, recordings: Sequence[Recording], config: DataConfig, seed: int, what: str
) -> Tensor:
    """Simulate an event camera on the images of `recordings` -> frames [T, N, 2, H, W], as `load_recordings`."""
    simulate = SIMULATORS[config.events.simulator]
    sensor_size = config.events.sensor_size
    if sensor_size is None:
        raise UserError("data.events.sensor_size: simulated recordings need a width and a height, null was given")

    def make() -> Iterator[np.ndarray]:
        for recording in track(recordings, what):
            noise_seed = recording_seed(seed, int(recording.id))
            image = source.read(int(recording.id))[0].numpy()
            image = 255 - image if config.events.invert else image
            yield to_frames(simulate(image, sensor_size=sensor_size, seed=noise_seed), sensor_size, config)

    def identity(recording: Recording) -> str:
        return f"{crc32(source.read(int(recording.id)).numpy().tobytes()):08x}"

    entries = [Entry(r.name, identity(r)) for r in recordings] if config.cache else []
    static = config.static
    settings = {
        "simulator": [config.events.simulator, config.events.invert, ev.SIMULATOR_VERSION, seed],
        "images": [static.source, static.root, static.kwargs],
    }
    return _stack(make(), entries, settings, config, what)


def suffixes(config: EventsConfig) -> Collection[str]:
    """What the files of a configuration's recordings end with."""
    return STROKES if config.source == "strokes" else tuple(READERS)


SIMULATORS: dict[str, Callable[..., np.ndarray]] = {"saccades": ev.simulate_saccades, "drift": ev.simulate_drift}


def to_frames(events: np.ndarray, sensor_size: tuple[int, int] | None, config: DataConfig) -> np.ndarray:
    """Frames [T, 2, H, W] of `config.size`; sensor_size None: as far as the events reach."""
    if sensor_size is None:
        sensor_size = (int(events["x"].max()) + 1, int(events["y"].max()) + 1)
    # Recordings of several sizes stand in one array: all are resized, or none.
    keep = config.size == sensor_size and config.events.sensor_size is not None
    return ev.to_frames(events, config.time_steps, sensor_size, None if keep else config.size)


def read_events(recording: Recording, config: EventsConfig) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Events of a recording within its span and the window, and the sensor size that config or header state.

    Raises:
        ValueError: the file is damaged, contradicts the stated sensor, or nothing is left of it.
    """
    assert recording.path is not None
    if config.source == "strokes":
        events, size = _write_strokes(recording, config), config.sensor_size
    else:
        events, size = _read(recording)
    if size and config.sensor_size and size != config.sensor_size:
        raise ValueError(
            f"its header says {size[0]}x{size[1]}, data.events.sensor_size {config.sensor_size[0]}x"
            f"{config.sensor_size[1]}; correct it, or give null to go by the header"
        )
    size = config.sensor_size or size
    if recording.span:
        events = events[(events["t"] >= recording.span[0]) & (events["t"] < recording.span[1])]
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


def _write_strokes(recording: Recording, config: EventsConfig) -> np.ndarray:
    """The same noise each time, whatever the run's seed: a drawing has one recording."""
    assert recording.path is not None
    if config.sensor_size is None:
        raise ValueError("data.events.sensor_size: simulated recordings need a width and a height, null was given")
    return simulate_strokes(recording.path, sensor_size=config.sensor_size, seed=crc32(recording.name.encode()))


def _read(recording: Recording) -> ev.RecordedEvents:
    """A file of several recordings is read once for all of them, which stand next to each other."""
    assert recording.path is not None
    if recording.span is None:
        return read_recording(recording.path)
    return _read_shared(recording.path, recording.path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_shared(path: Path, modified: int) -> ev.RecordedEvents:
    return read_recording(path)


def _read_frames(recording: Recording, config: DataConfig) -> np.ndarray:
    try:
        return to_frames(*read_events(recording, config.events), config)
    except (ValueError, OSError) as error:
        reason = str(error) if str(recording.path) in str(error) else f"{recording.path}: {error}"
        raise UserError(f"recording {reason}") from error


def _stack(
    frames: Iterator[np.ndarray], entries: Sequence[Entry], settings: dict[str, Any], config: DataConfig, what: str
) -> Tensor:
    """Frames of all recordings as [T, N, 2, H, W], in memory, or as a file of the cache."""
    if config.cache is None:
        return torch.from_numpy(np.stack(list(frames), axis=1))
    settings = {
        **settings,
        "time_steps": config.time_steps,
        "size": config.size,
        "sensor_size": config.events.sensor_size,
    }
    shape = (config.time_steps, 2, config.size[1], config.size[0])
    return torch.from_numpy(FrameCache(config.cache).frames(what, settings, entries, frames, shape))


def _shorten(names: Collection[str]) -> str:
    shown = list(names)[:12]
    return ", ".join(shown) + (f", ... ({len(names)} in all)" if len(names) > len(shown) else "")
