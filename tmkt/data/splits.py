"""Which recordings train, validate and test; and which static image each of them shows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..config import EventsConfig
from ..errors import UserError
from .shipped import Protocol, load_protocol
from .sources.events import Recording
from .sources.images import StaticSource


class Split(NamedTuple):
    train: list[Recording]
    validation: list[Recording]
    test: list[Recording]


def split_recordings(recordings: Sequence[Recording], classes: Sequence[str], config: EventsConfig, seed: int) -> Split:
    """Split class by class: disjoint, and the same for the same seed and recordings.

    Without a protocol, at random: validation recordings are drawn first and test recordings (if counted)
    next, so that both stay the same when train_per_class changes. With one (`config.split`), its test
    recordings are as published; validation and training ones are drawn from its training share. With a
    `test_root`, whose recordings are test ones already, all of `recordings` are to train and validate.

    Raises:
        UserError: a class has too few recordings.
    """
    split = Split([], [], [])
    protocol = load_protocol(config.split) if config.split else None
    for label, name in enumerate(classes):
        ours = sorted((r for r in recordings if r.label == label), key=lambda r: r.name)
        rng = np.random.default_rng([seed, label])
        if protocol:
            ours, test = _by_protocol(ours, protocol, rng)
            split.test.extend(test[: config.test_per_class])
        shuffled = [ours[i] for i in rng.permutation(len(ours))]
        counted = not (protocol or config.test_root)
        if counted and config.train_per_class is None and config.test_per_class is None:
            raise UserError("data.events: train_per_class and test_per_class are both null; give one, or a split")
        _count_out(split, shuffled, name, config, counted)
    return split


def twin_indices(recordings: Sequence[Recording], source: StaticSource, kind: str) -> list[int]:
    """Index in the static set of the image that each recording shows, by `data.static.exclude_twins`.

    "nmnist" holds for MNIST in its original order: id - 1. An index may lie beyond the set. "name": the image
    of the same class and file name; -1 where there is none. "simulated": the id is the index.

    Raises:
        UserError: ids are no numbers, or the set has no file names.
    """
    if kind == "simulated":
        return [int(r.id) for r in recordings]
    if kind == "name":
        if source.files is None:
            raise UserError("data.static.exclude_twins: name needs images with file names, source: folder or cep_dvs")
        index = {(label, path.stem): i for i, (label, path) in enumerate(zip(source.labels, source.files, strict=True))}
        return [index.get((r.label, r.id), -1) for r in recordings]
    for recording in recordings:
        if not recording.id.isdecimal() or int(recording.id) < 1:
            raise UserError(f"recording {recording.name}: exclude_twins: nmnist needs ids that are numbers from 1 on")
    return [int(r.id) - 1 for r in recordings]


def _by_protocol(
    ours: Sequence[Recording], protocol: Protocol, rng: np.random.Generator
) -> tuple[list[Recording], list[Recording]]:
    """The protocol's training and test recordings of one class, sorted by name: the first and the last of them."""
    ordered = list(ours) if protocol.order == "name" else [ours[i] for i in rng.permutation(len(ours))]
    train = round(protocol.train * len(ordered))
    whole = protocol.train + protocol.test > 1 - 1e-9
    test = len(ordered) - train if whole else round(protocol.test * len(ordered))
    if test == 0:
        name = ours[0].name.rpartition("/")[0] if ours else "a class"
        raise UserError(f"data.events.split: {name} has {len(ours)} recordings, too few for one to test")
    return ordered[:train], ordered[len(ordered) - test :]


def _count_out(split: Split, shuffled: list[Recording], name: str, config: EventsConfig, counted: bool) -> None:
    """Deal one class's recordings: to validation, to test where that is `counted` here, the rest to training."""
    validation, train = config.validation_per_class, config.train_per_class
    test = config.test_per_class or 0 if counted else 0
    needed = validation + (train or 1) + (max(test, 1) if counted else 0)
    if len(shuffled) < needed:
        parts = f"{train or '1 or more'} to train, {validation} to validate"
        parts += f", {max(test, 1)} or more to test" if counted else ""
        raise UserError(
            f"data.events: class {name!r} has {len(shuffled)} recordings, {needed} are needed ({parts}); "
            "ask for fewer a class"
        )
    split.validation.extend(shuffled[:validation])
    split.test.extend(shuffled[validation : validation + test])
    rest = shuffled[validation + test :]
    split.train.extend(rest[:train])
    if counted and config.test_per_class is None:
        split.test.extend(rest[train:])
