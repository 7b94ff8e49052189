"""Recordings of the sets of tonic (https://tonic.readthedocs.io), by the name of their class."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from tmkt_kernels import events as ev

from ...config import DataConfig, EventsConfig
from ...errors import UserError
from ..bundled import ClassMap
from ..cache import Entry
from .events import Recording, to_frames

NOT_TAKEN = {
    **dict.fromkeys(
        ("NTIDIGITS18", "SHD", "SSC"),
        "its recordings are audio, of a row of frequencies; frames need rows, columns and polarities",
    ),
    "SMNIST": "its events are of a row of neurons; frames need rows, columns and polarities",
    **dict.fromkeys(
        ("DAVISDATA", "DSEC", "EBSSA", "MVSEC", "NERDD", "ThreeET_Eyetracking", "TUMVIE", "VPR"),
        "its recordings do not have one class each",
    ),
}
"""Sets of tonic that are no sets of labelled recordings of an event camera, with reasons."""

NOT_KEYWORDS = {
    "save_to": "write it as data.events.root",
    **dict.fromkeys(("transform", "transforms"), "write them as data.events.transforms"),
    "target_transform": "data.classes gives classes other names",
}
"""Keywords of tonic's sets that `data.events.kwargs` does not take, with reasons."""


class TonicEvents:
    """A set of tonic. `found`: its recordings, by class and name; `names`: its own names of the classes that it has.

    A recording has the name of its file, or its number in the set where it has no file of its own.

    Args:
        test: open the set by `test_kwargs` rather than `kwargs`.

    Raises:
        UserError: the set is unknown, not on disk or of another kind, or a keyword or a transform is wrong.
    """

    def __init__(self, config: DataConfig, *, test: bool = False) -> None:
        self.config = config
        events = config.events
        key, kwargs = ("test_kwargs", events.test_kwargs or {}) if test else ("kwargs", events.kwargs)
        self.kwargs = kwargs
        self.transforms = _open_transforms(events)
        self.dataset = _open_set(events, key, kwargs)
        self.sensor_size = _sensor_of(self.dataset, events)
        labels = _class_names(self.dataset, events.name)
        self.names = tuple(dict.fromkeys(name for _, name in sorted(labels)))
        self._label_names = [name for _, name in labels]

    def mapped(self, classes: ClassMap) -> "TonicEvents":
        """Find the recordings under the classes of a pair. Raises UserError for a class that either side lacks."""
        subject, known = f"data.events: {self.config.events.name}", classes.events
        if unknown := [name for name in self.names if name not in known]:
            raise UserError(
                f"{subject} has the class(es) {', '.join(unknown[:12])}, none of {', '.join([*known][:12])}"
            )
        ids = self._ids()
        labels = {name: label for label, name in enumerate(classes.names)}
        found = [
            Recording(labels[target], f"{name}/{ids[i]}", i)
            for i, name in enumerate(self._label_names)
            if (target := known[name]) is not None
        ]
        present = {recording.label for recording in found}
        if missing := [name for name in classes.names if labels[name] not in present]:
            raise UserError(f"{subject} has no recordings of the class(es) {', '.join(missing[:12])}")
        self.found = sorted(found, key=lambda recording: recording.name)  # tonic lists some folders in any order
        return self

    def recordings(self) -> list[Recording]:
        return self.found

    def read(self, recording: Recording) -> np.ndarray:
        """Return a recording's events, transformed. Raises UserError if tonic cannot read or transform them."""
        try:
            with _numpy_seed(crc32(recording.name.encode())):
                events = self.dataset[recording.index][0]
                for transform in self.transforms:
                    events = transform(events)
            return ev.as_events(events)
        except Exception as error:  # each set of tonic raises its own exceptions
            where = self._path(recording.index) or recording.name
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"recording {where}: {self.config.events.name} cannot be read ({reason})") from error

    def frames(self, recording: Recording) -> np.ndarray:
        events = self.read(recording)
        try:
            if len(events) == 0:
                raise ValueError("holds no events, or none is left after data.events.transforms")
            return to_frames(events, self.sensor_size, self.config)
        except ValueError as error:
            raise UserError(f"recording {self._path(recording.index) or recording.name}: {error}") from error

    def key(self, recordings: Sequence[Recording]) -> tuple[dict[str, Any], list[Entry]]:
        events = self.config.events
        settings = {
            "tonic": [events.name, version("tonic"), self.kwargs, events.transforms],
            "sensor": self.sensor_size,
        }
        return settings, [self._entry(recording) for recording in recordings]

    def _entry(self, recording: Recording) -> Entry:
        path = self._path(recording.index)
        if path is None:
            return Entry(recording.name, f"{crc32(self.read(recording).tobytes()):08x}")
        return Entry.of(path, recording.name)

    def _path(self, index: int) -> Path | None:
        """Return the file of a recording; None if the set does not keep each in a file of its own."""
        item = self.dataset.data[index] if len(self.dataset.data) == len(self._label_names) else None
        return Path(item) if isinstance(item, str | Path) and Path(item).is_file() else None

    def _ids(self) -> list[str]:
        """Return names of the recordings, each once in its class: of the files, of their paths, or numbers."""
        paths = [self._path(i) for i in range(len(self._label_names))]
        if not all(paths):
            return [f"{i:0{len(str(len(paths)))}d}" for i in range(len(paths))]
        stems = [path.stem for path in paths if path]
        if max(Counter(zip(self._label_names, stems, strict=True)).values()) == 1:
            return stems
        top = self.dataset.location_on_system
        return ["_".join(path.relative_to(top).with_suffix("").parts) for path in paths if path]


def _open_set(events: EventsConfig, key: str, kwargs: dict[str, Any]) -> Any:
    """Construct the class of tonic.datasets, which may download only with `data.events.download`."""
    known, name = _tonic("datasets").__all__, events.name
    taken = [each for each in known if each not in NOT_TAKEN]
    if name not in taken:
        reason = NOT_TAKEN.get(name, "is no set of tonic") if name in known else "is no set of tonic"
        raise UserError(f"data.events.name: {name}: {reason}; expected one of {', '.join(taken)}")
    for keyword in kwargs:
        if keyword in NOT_KEYWORDS:
            raise UserError(f"data.events.{key}: {keyword} is not taken: {NOT_KEYWORDS[keyword]}")
    if not events.root:
        raise UserError(f"data.events.root: is empty; write the folder that holds, or shall hold, {name}/")
    kind: Any = getattr(_tonic("datasets"), name)
    if not events.download:  # by tonic's own check, whatever lacks the archive or a file would be downloaded
        guard = {"_check_exists": lambda self: True, "download": _refuse}
        kind = type(name, (kind,), guard)
    try:
        dataset = kind(events.root, **kwargs)
    except TypeError as error:
        raise UserError(f"data.events.{key}: {name} does not take {kwargs} ({error})") from error
    except (Exception, SystemExit) as error:  # each set of tonic raises its own; DVSLip ends the program
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"data.events: {name} cannot be opened in {events.root!r} ({reason}); {_fetch(name)}"
        ) from error
    if len(dataset) == 0:
        where = Path(dataset.location_on_system, dataset.folder_name)
        raise UserError(f"data.events.root: {where} holds no recordings of {name}; {_fetch(name)}")
    return dataset


def _refuse(self: Any) -> None:
    raise FileNotFoundError("it would be downloaded")


def _fetch(name: str) -> str:
    return f"`tmkt data prepare CONFIG data.events.download=true` lets tonic download {name} where it can"


def _open_transforms(events: EventsConfig) -> list[Callable[[np.ndarray], np.ndarray]]:
    module = _tonic("transforms")
    known = {k: v for k, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__}
    made = []
    for stated in events.transforms:
        if len(stated) != 1:
            raise UserError(
                f"data.events.transforms: expected items such as {{CropTime: {{max: 100000}}}}, got {stated}"
            )
        ((name, kwargs),) = stated.items()
        if name not in known:
            raise UserError(f"data.events.transforms: {name!r} is none of tonic's: {', '.join(sorted(known))}")
        try:
            made.append(known[name](**kwargs))
        except Exception as error:  # assertions among them
            raise UserError(f"data.events.transforms: {name} does not take {kwargs} ({error})") from error
    return made


def _sensor_of(dataset: Any, events: EventsConfig) -> tuple[int, int] | None:
    """Return width and height of the set's sensor, or those stated for what transforms make of it."""
    stated, size = events.sensor_size, getattr(dataset, "sensor_size", None)
    if size is None:
        return stated
    if len(size) != 3 or size[1] < 2 or size[2] != 2:
        raise UserError(
            f"data.events.name: {events.name}: a sensor {tuple(size)} has no rows, columns and two polarities"
        )
    own = (int(size[0]), int(size[1]))
    if stated not in (None, own) and not events.transforms:
        assert stated is not None
        raise UserError(
            f"data.events.sensor_size: {events.name} has {own[0]}x{own[1]} by tonic, got {stated[0]}x{stated[1]}; give "
            "null to go by the set"
        )
    return stated or own


def _class_names(dataset: Any, name: str) -> list[tuple[Any, str]]:
    """Return label and class name of each recording. tonic has labels as numbers or texts, and names for some."""
    labels = list(getattr(dataset, "targets", ()))
    if len(labels) != len(dataset) or not all(isinstance(label, int | np.integer | str) for label in labels):
        raise UserError(f"data.events.name: {name}: its recordings do not have one class each")
    classes = getattr(dataset, "classes", None)
    named = {label: own for own, label in classes.items()} if isinstance(classes, dict) else classes

    def text(label: Any) -> str:
        # tonic's NMNIST calls its classes "0 - zero", as torchvision's MNIST does.
        return str(label if isinstance(label, str) or not named else named[label]).split(" - ")[0]

    return [(label, text(label)) for label in labels]


def _tonic(module: str) -> Any:
    try:
        return import_module(f"tonic.{module}")
    except ImportError as error:
        raise UserError(f"data.events.source: tonic cannot be imported ({error}); pip install tonic") from error


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, from which tonic's transforms draw, and then put it back."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
