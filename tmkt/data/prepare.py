"""From a configuration to tensors: split, leak guard, loading. Everything random comes from the seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Config
from ..errors import UserError
from .pairs import EventFrames, PairedData
from .recordings import Recording, find_recordings, load_recordings, simulate_recordings
from .splits import Split, nmnist_twins, split_recordings
from .static import StaticSource, load_images, open_static


@dataclass(frozen=True)
class RunData:
    """All that a run reads. `record` is what split.json holds: which recordings and images served for what."""

    classes: tuple[str, ...]
    train: PairedData
    validation: EventFrames
    test: EventFrames
    record: dict[str, Any]


def prepare(config: Config) -> RunData:
    """Open, split and load the data of `config`. Raises UserError, naming what is wrong with which file."""
    data = config.data
    source = open_static(data.static)
    split = split_recordings(_candidates(config, source), source.classes, data.events, config.seed)
    static_index = _choose_images(config, source, split)
    frames = {part: _load(config, source, getattr(split, part), part) for part in Split._fields}
    images = load_images(source, static_index, data.size, data.static.fit, "static images")
    record = {
        "seed": config.seed,
        "classes": list(source.classes),
        **{part: [r.name for r in getattr(split, part)] for part in Split._fields},
        "static_images": static_index.tolist(),
    }
    image_labels = torch.from_numpy(source.labels[static_index])
    train = PairedData(images, image_labels, frames["train"], len(source.classes))
    return RunData(source.classes, train, frames["validation"], frames["test"], record)


def load_folder(config: Config, classes: tuple[str, ...], root: str | Path) -> EventFrames:
    """Recordings <class>/<id>.bin under `root`, some or all of `classes`, for evaluation."""
    recordings = find_recordings(root, classes, every_class=False)
    return _frames(load_recordings(recordings, config.data, "recordings"), recordings)


def _candidates(config: Config, source: StaticSource) -> list[Recording]:
    """The recordings to split: those of the folder, or one to be simulated from each image."""
    events = config.data.events
    if events.source == "folder":
        return find_recordings(events.root, source.classes)
    if events.test_per_class is None:
        raise UserError("data.events.test_per_class: simulated recordings need a number, null was given")
    return [Recording(int(y), f"{source.classes[y]}/{i}") for i, y in enumerate(source.labels)]


def _choose_images(config: Config, source: StaticSource, split: Split) -> np.ndarray:
    """Indices of the static images: none that a held-out recording shows, nor any that was simulated from."""
    static, barred = config.data.static, set[int]()
    if config.data.events.source == "simulated":
        barred = {int(r.id) for part in split for r in part}
    elif static.exclude_twins == "nmnist":
        if static.source != "MNIST" or not static.kwargs.get("train", True):
            raise UserError("data.static.exclude_twins: nmnist is about the training images of MNIST, source: MNIST")
        barred = nmnist_twins([*split.validation, *split.test])
    allowed = np.setdiff1d(np.arange(len(source.labels)), np.fromiter(barred, dtype=np.int64, count=len(barred)))
    if static.per_class is not None:
        rng = np.random.default_rng([config.seed, len(source.classes)])
        allowed = rng.permutation(allowed)
        labels = source.labels[allowed]
        allowed = np.concatenate([allowed[labels == k][: static.per_class] for k in range(len(source.classes))])
    empty = [name for k, name in enumerate(source.classes) if not (source.labels[allowed] == k).any()]
    if empty:
        raise UserError(f"data.static: no image is left for the class(es) {', '.join(empty)}; hold fewer out")
    return np.sort(allowed)


def _load(config: Config, source: StaticSource, recordings: list[Recording], part: str) -> EventFrames:
    if not recordings:
        width, height = config.data.size
        return EventFrames(torch.empty(config.data.time_steps, 0, 2, height, width), torch.empty(0).long(), ())
    if config.data.events.source == "folder":
        frames = load_recordings(recordings, config.data, f"{part} recordings")
    else:
        frames = simulate_recordings(source, recordings, config.data, config.seed, f"simulating to {part}")
    return _frames(frames, recordings)


def _frames(frames: torch.Tensor, recordings: list[Recording]) -> EventFrames:
    labels = torch.tensor([r.label for r in recordings], dtype=torch.int64)
    return EventFrames(frames, labels, tuple(r.name for r in recordings))
