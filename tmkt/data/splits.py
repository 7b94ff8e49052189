"""Which recordings train, validate and test; and which static images must not be seen with them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..config import EventsConfig
from ..errors import UserError
from .recordings import Recording


class Split(NamedTuple):
    train: list[Recording]
    validation: list[Recording]
    test: list[Recording]


def split_recordings(recordings: Sequence[Recording], classes: Sequence[str], config: EventsConfig, seed: int) -> Split:
    """Split per class at random: disjoint, and the same for the same seed and recordings.

    Validation recordings are drawn first and test recordings (if counted) next, so that both stay
    the same when train_per_class changes.

    Raises:
        UserError: a class has too few recordings.
    """
    split = Split([], [], [])
    for label, name in enumerate(classes):
        ours = sorted((r for r in recordings if r.label == label), key=lambda r: r.name)
        order = np.random.default_rng([seed, label]).permutation(len(ours))
        shuffled = [ours[i] for i in order]
        validation, test, train = config.validation_per_class, config.test_per_class or 0, config.train_per_class
        needed = validation + train + max(test, 1)
        if len(ours) < needed:
            raise UserError(
                f"data.events: class {name!r} has {len(ours)} recordings, {needed} are needed ({train} to train, "
                f"{validation} to validate, {max(test, 1)} or more to test); ask for fewer a class"
            )
        split.validation.extend(shuffled[:validation])
        split.test.extend(shuffled[validation : validation + test])
        rest = shuffled[validation + test :]
        split.train.extend(rest[:train])
        if config.test_per_class is None:
            split.test.extend(rest[train:])
    return split


def nmnist_twins(recordings: Sequence[Recording]) -> set[int]:
    """Indices of the MNIST training images that N-MNIST training recordings show: id - 1.

    Holds for MNIST in its original order. Raises UserError for an id that is not a positive number.
    """
    twins = set()
    for recording in recordings:
        if not recording.id.isdecimal() or int(recording.id) < 1:
            raise UserError(f"recording {recording.name}: exclude_twins: nmnist needs ids that are numbers from 1 on")
        twins.add(int(recording.id) - 1)
    return twins
