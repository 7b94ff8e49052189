"""Split of the recordings into training, validation and test, and choice of static images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from ..config import Config, EventsConfig
from ..errors import UserError
from ..progress import count, say
from .bundled import Protocol, load_protocol
from .sources.events import Recording
from .sources.images import StaticSource
from .twins import known_twins, shown_image

TEST_ROOT = "test:"  # prefix of the names of recordings of data.events.test_root


class Split(NamedTuple):
    train: list[Recording]
    validation: list[Recording]
    test: list[Recording]


def split_recordings(recordings: Sequence[Recording], classes: Sequence[str], config: EventsConfig, seed: int) -> Split:
    """Split class by class: disjoint, and the same for the same seed and recordings.

    Without a protocol, the split is random. Validation recordings are drawn first and test recordings (if counted)
    next, so that both stay the same when train_per_class changes. With a protocol (`config.split`), test recordings are
    as published; validation and training recordings are drawn from its training share. With a `test_root`, which has
    the test recordings, all of `recordings` serve to train and validate.

    Raises:
        UserError: a class has too few recordings.
    """
    split = Split([], [], [])
    protocol = load_protocol(config.split) if config.split else None
    for label, name in enumerate(classes):
        members = sorted((r for r in recordings if r.label == label), key=lambda r: r.name)
        rng = np.random.default_rng([seed, label])
        if protocol:
            members, test = _by_protocol(members, protocol, rng)
            split.test.extend(test[: config.test_per_class])
        shuffled = [members[i] for i in rng.permutation(len(members))]
        counted = not (protocol or config.has_test_set)
        if counted and config.train_per_class is None and config.test_per_class is None:
            raise UserError("data.events: train_per_class and test_per_class are both null; give one, or a split")
        _count_out(split, shuffled, name, config, counted)
    if config.shows_every_image:  # in one order, so that a cache of these recordings serves every seed
        return Split(*(sorted(part, key=lambda recording: recording.name) for part in split))
    return split


def draw_test_recordings(recordings: Sequence[Recording], classes: Sequence[str], config: Config) -> list[Recording]:
    """Draw `test_per_class` of each class from a test_root's recordings; their names then begin with "test:"."""
    events = config.data.events
    if events.split:
        other = "test_root" if events.test_root else "test_kwargs"
        raise UserError(f"data.events: split and {other} both say what tests; give one")
    chosen = []
    for label in range(len(classes)):
        members = [replace(r, name=f"{TEST_ROOT}{r.name}") for r in recordings if r.label == label]
        order = np.random.default_rng([config.seed, label, 1]).permutation(len(members))
        chosen += [members[i] for i in order[: events.test_per_class]]
    return chosen


def choose_images(config: Config, images: StaticSource, split: Split) -> tuple[np.ndarray, torch.Tensor | None]:
    """Return the indices of the static images, and with pairing: twin the row among them for each training recording.

    None of them is shown by a held-out recording, if it is known what these show. With
    `EventsConfig.shows_every_image`, exclude_twins "none" allows them nevertheless. Otherwise an image that a training
    recording is simulated from serves as static image only as its twin.
    """
    static = config.data.static
    if config.data.pairing == "twin" and split.train:
        if static.exclude_twins == "none" and any(recording.image is None for recording in split.train):
            raise UserError("data.pairing: twin needs data.static.exclude_twins, which says what recordings show")
        if static.per_class is not None:
            raise UserError("data.static.per_class: with data.pairing: twin the recordings say which images; give null")
        rows, order = np.unique(known_twins(split.train, images, static), return_inverse=True)
        return rows, torch.from_numpy(order)
    # Test recordings in a folder of their own have twins of their own; in N-MNIST, among the test images.
    recordings = [r for part in (split.validation, split.test) for r in part if not r.name.startswith(TEST_ROOT)]
    if not config.data.events.shows_every_image:
        recordings += [r for r in split.train if r.image is not None]
    elif static.exclude_twins == "none":
        if recordings:
            shown = f"images that the {count(len(recordings), 'held-out recording')} are simulated from"
            say(f"data.static.exclude_twins: none: the static set may hold the {shown}")
        recordings = []
    barred = [image for r in recordings if (image := shown_image(r, images, static)) is not None]
    allowed = np.setdiff1d(np.flatnonzero(images.labels >= 0), np.asarray(barred, dtype=np.int64))
    if static.per_class is not None:
        rng = np.random.default_rng([config.seed, len(images.classes)])
        allowed = rng.permutation(allowed)
        labels = images.labels[allowed]
        allowed = np.concatenate([allowed[labels == k][: static.per_class] for k in range(len(images.classes))])
    empty = [name for k, name in enumerate(images.classes) if not (images.labels[allowed] == k).any()]
    if empty:
        raise UserError(f"data.static: no image is left for the class(es) {', '.join(empty)}; hold fewer out")
    return np.sort(allowed), None


def _by_protocol(
    members: Sequence[Recording], protocol: Protocol, rng: np.random.Generator
) -> tuple[list[Recording], list[Recording]]:
    """Return the protocol's training and test recordings of one class: the first and the last in the order of names."""
    if protocol.order == "listed":
        return _by_lists(members)
    ordered = list(members) if protocol.order == "name" else [members[i] for i in rng.permutation(len(members))]
    train = round(protocol.train * len(ordered))
    whole = protocol.train + protocol.test > 1 - 1e-9
    test = len(ordered) - train if whole else round(protocol.test * len(ordered))
    if test == 0:
        name = members[0].name.rpartition("/")[0] if members else "a class"
        raise UserError(f"data.events.split: {name} has {len(members)} recordings, too few for one to test")
    return ordered[:train], ordered[len(ordered) - test :]


def _by_lists(members: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Return the training and test recordings of one class, as the lists that come with the set name them."""
    train, test = ([r for r in members if r.part == part] for part in ("train", "test"))
    if members and not (train and test):
        name, missing = members[0].name.rpartition("/")[0], "train on" if test else "test on"
        raise UserError(
            f"data.events.split: the set lists none of the {len(members)} recordings of {name} to {missing}; order "
            "listed needs data.events.layout dvs_gesture, with trials_to_train.txt and trials_to_test.txt"
        )
    return train, test


def _count_out(split: Split, shuffled: list[Recording], name: str, config: EventsConfig, counted: bool) -> None:
    """Deal one class's recordings: to validation, to test if that is `counted` here, the rest to training."""
    validation, train = config.validation_per_class, config.train_per_class
    test = config.test_per_class or 0 if counted else 0
    needed = validation + (1 if train is None else train) + (max(test, 1) if counted else 0)
    if len(shuffled) < needed:
        parts = f"{'1 or more' if train is None else train} to train, {validation} to validate"
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
