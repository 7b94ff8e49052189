"""From a configuration to tensors: split, leak guard, loading. Everything random comes from the seed."""

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Config
from ..errors import UserError
from .layouts import LAYOUTS
from .pairs import EventFrames, PairedData
from .shipped import ClassMap, load_class_map
from .sources.events import Recording, find_recordings, load_recordings, simulate_recordings, suffixes
from .sources.images import StaticSource, load_images, open_static
from .splits import Split, split_recordings, twin_indices

PARTS = (*Split._fields, "static_images")  # of a record


@dataclass(frozen=True)
class RunData:
    """All that a run reads.

    `record` is what split.json holds: which recordings and images served for what (`PARTS`), and under `digests`, in
    the same order, the digest of each one's content.
    """

    classes: tuple[str, ...]
    train: PairedData
    validation: EventFrames
    test: EventFrames
    record: dict[str, Any]


def prepare(config: Config) -> RunData:
    """Open, split and load the data of `config`. Raises UserError, naming what is wrong with which file."""
    data = config.data
    source, classes = open_pair(config)
    split = _split(config, source, classes)
    paired = has_images(config)
    static_index, twins = _choose_images(config, source, split) if paired else (np.arange(len(source.labels)), None)
    frames = {part: _load(config, source, getattr(split, part), part) for part in Split._fields}
    images = load_images(source, static_index, data.size, data.static.fit, "static images", data.cache)
    record = {
        "seed": config.seed,
        "classes": list(source.classes),
        **{part: [r.name for r in getattr(split, part)] for part in Split._fields},
        "static_images": static_index.tolist() if paired else [],
        "digests": {
            **{part: digests(of.frames) for part, of in frames.items()},
            "static_images": digests(images[None]) if paired else [],
        },
    }
    image_labels = torch.from_numpy(source.labels[static_index])
    train = PairedData(images, image_labels, frames["train"], len(source.classes), twins)
    return RunData(source.classes, train, frames["validation"], frames["test"], record)


def digests(frames: torch.Tensor) -> list[str]:
    """Frames [T, N, ...] -> a digest of each of the N, 16 hexadecimal digits, of what the network sees of it."""
    return [
        sha256(one.contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()[:16] for one in frames.unbind(1)
    ]


def fill_cache(config: Config) -> str:
    """Prepare the data of `config` into `data.cache`; returns a line that says what is there."""
    if config.data.cache is None:
        raise UserError("data.cache: null was given; name the folder that shall hold the frames, data.cache=DIR")
    data = prepare(config)
    counts = f"{len(data.train.events)} train, {len(data.validation)} validation, {len(data.test)} test recordings"
    megabytes = sum(path.stat().st_size for path in Path(config.data.cache).glob("*.npy")) / 1e6
    return f"{counts}; {config.data.cache} holds {megabytes:.1f} MB"


def open_pair(config: Config) -> tuple[StaticSource, ClassMap]:
    """The static set under the classes of the pair, and what the recordings' folders mean.

    Recordings alone (events_only without a static set) say the classes themselves; a black image stands for each class.
    """
    if not has_images(config):
        classes = load_class_map(config.data.classes) if config.data.classes else _classes_of_recordings(config)
        black = torch.zeros(1, 1, 1, dtype=torch.uint8)
        return StaticSource(np.arange(len(classes.names)), classes.names, lambda _: black), classes
    source = open_static(config.data.static)
    classes = load_class_map(config.data.classes) if config.data.classes else ClassMap.same(source.classes)
    return source.mapped(classes), classes


def has_images(config: Config) -> bool:
    """Whether the run has a static set. Without one it learns from recordings alone, if they are not made of images."""
    alone = config.transfer.method == "events_only" and config.data.events.source != "simulated"
    return bool(config.data.static.source) or not alone


def _classes_of_recordings(config: Config) -> ClassMap:
    events = config.data.events
    listing = LAYOUTS[events.layout](events.root, suffixes(events), "recordings")
    return ClassMap.same(sorted({item.folder for item in listing.items} | {p.folder for p in listing.problems}))


def load_folder(config: Config, classes: tuple[str, ...], root: str | Path) -> EventFrames:
    """Recordings <class>/<id>.<ext> under `root`, some or all of `classes`, for evaluation."""
    mapped = load_class_map(config.data.classes) if config.data.classes else ClassMap.same(classes)
    recordings = find_recordings(root, mapped, layout=config.data.events.layout, every_class=False)
    return _frames(load_recordings(recordings, config.data, "recordings"), recordings)


def _split(config: Config, source: StaticSource, classes: ClassMap) -> Split:
    """Divide the recordings of the folder, or those to be simulated, one from each image."""
    events = config.data.events
    if events.source == "simulated":
        if events.test_per_class is None:
            raise UserError("data.events.test_per_class: simulated recordings need a number, null was given")
        candidates = [Recording(int(y), f"{source.classes[y]}/{i}") for i, y in enumerate(source.labels) if y >= 0]
        return split_recordings(candidates, source.classes, events, config.seed)
    split = split_recordings(
        find_recordings(events.root, classes, layout=events.layout, suffixes=suffixes(events)),
        source.classes,
        events,
        config.seed,
    )
    if events.test_root:
        return split._replace(test=_test_recordings(config, classes))
    return split


def _test_recordings(config: Config, classes: ClassMap) -> list[Recording]:
    """Those of `test_root`, `test_per_class` of each class drawn with the seed. Their names begin with "test:"."""
    events = config.data.events
    if events.split:
        raise UserError("data.events: split and test_root both say what tests; give one")
    found = find_recordings(events.test_root, classes, layout=events.layout, suffixes=suffixes(events))
    chosen = []
    for label in range(len(classes.names)):
        ours = [replace(r, name=f"test:{r.name}") for r in found if r.label == label]
        order = np.random.default_rng([config.seed, label, 1]).permutation(len(ours))
        chosen += [ours[i] for i in order[: events.test_per_class]]
    return chosen


def _choose_images(config: Config, source: StaticSource, split: Split) -> tuple[np.ndarray, torch.Tensor | None]:
    """Indices of the static images, and with pairing: twin the row among them that each training recording shows.

    None shows what a held-out recording shows. Of images that were simulated from, those of training recordings
    serve as static images only as their twins.
    """
    static, pairing = config.data.static, config.data.pairing
    kind = "simulated" if config.data.events.source == "simulated" else static.exclude_twins
    if kind == "nmnist" and (static.source != "MNIST" or not static.kwargs.get("train", True)):
        raise UserError("data.static.exclude_twins: nmnist is about the training images of MNIST, source: MNIST")
    if pairing == "twin":
        if kind == "none":
            raise UserError("data.pairing: twin needs data.static.exclude_twins, which says what recordings show")
        if static.per_class is not None:
            raise UserError("data.static.per_class: with data.pairing: twin the recordings say which images; give null")
        rows, order = np.unique(_known_twins(source, split.train, kind), return_inverse=True)
        return rows, torch.from_numpy(order)
    # A test recording of a folder of its own has a twin of its own: in N-MNIST, among the test images.
    held_out = [r for part in (split.validation, split.test) for r in part if not r.name.startswith("test:")]
    shown = held_out + (split.train if kind == "simulated" else [])
    barred = twin_indices(shown, source, kind) if kind != "none" else []
    allowed = np.setdiff1d(np.flatnonzero(source.labels >= 0), np.asarray(barred, dtype=np.int64))
    if static.per_class is not None:
        rng = np.random.default_rng([config.seed, len(source.classes)])
        allowed = rng.permutation(allowed)
        labels = source.labels[allowed]
        allowed = np.concatenate([allowed[labels == k][: static.per_class] for k in range(len(source.classes))])
    empty = [name for k, name in enumerate(source.classes) if not (source.labels[allowed] == k).any()]
    if empty:
        raise UserError(f"data.static: no image is left for the class(es) {', '.join(empty)}; hold fewer out")
    return np.sort(allowed), None


def _known_twins(source: StaticSource, recordings: list[Recording], kind: str) -> np.ndarray:
    """The image that each recording shows; an error where the set lacks it or has it under another class."""
    twins = np.asarray(twin_indices(recordings, source, kind), dtype=np.int64)
    for recording, twin in zip(recordings, twins, strict=True):
        label = source.labels[twin] if 0 <= twin < len(source.labels) else None
        if label != recording.label:
            found = (
                "the static set lacks it" if label is None else f"which the static set has as {source.classes[label]!r}"
            )
            raise UserError(
                f"recording {recording.name}: shows image {recording.id} of its class, {found}; "
                "correct the folder, or use data.pairing: class"
            )
    return twins


def _load(config: Config, source: StaticSource, recordings: list[Recording], part: str) -> EventFrames:
    if not recordings:
        width, height = config.data.size
        return EventFrames(torch.empty(config.data.time_steps, 0, 2, height, width), torch.empty(0).long(), ())
    if config.data.events.source != "simulated":
        frames = load_recordings(recordings, config.data, f"{part} recordings")
    else:
        frames = simulate_recordings(source, recordings, config.data, config.seed, f"simulating to {part}")
    return _frames(frames, recordings)


def _frames(frames: torch.Tensor, recordings: list[Recording]) -> EventFrames:
    labels = torch.tensor([r.label for r in recordings], dtype=torch.int64)
    return EventFrames(frames, labels, tuple(r.name for r in recordings))
