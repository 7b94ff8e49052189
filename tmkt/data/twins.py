"""Twins: a recording and the image that it shows."""

from collections.abc import Sequence

import numpy as np

from ..config import StaticConfig
from ..errors import UserError
from .sources.events import Recording
from .sources.images import StaticSource


def shown_image(recording: Recording, images: StaticSource, config: StaticConfig) -> int | None:
    """Return the index in `images` of the image that a recording shows; it may be beyond the set. None: unknown.

    A simulated recording has its image. For others, `data.static.exclude_twins` says how to find it: "nmnist" is for
    MNIST in its original order, id - 1; "name" is the image of the same class and file name.

    Raises:
        UserError: the static set is not of that kind, or an id is not a number.
    """
    if recording.image is not None:
        return recording.image
    if config.exclude_twins == "nmnist":
        if config.source != "MNIST" or not config.kwargs.get("train", True):
            raise UserError("data.static.exclude_twins: nmnist is about the training images of MNIST, source: MNIST")
        if not recording.id.isdecimal() or int(recording.id) < 1:
            raise UserError(f"recording {recording.name}: exclude_twins: nmnist needs ids that are numbers from 1 on")
        return int(recording.id) - 1
    if config.exclude_twins == "name":
        if images.files is None:
            raise UserError("data.static.exclude_twins: name needs images with file names, source: folder or cep_dvs")
        return images.by_name.get((recording.label, recording.id))
    return None


def known_twins(recordings: Sequence[Recording], images: StaticSource, config: StaticConfig) -> np.ndarray:
    """Return the image that each recording shows, int64 [N]. Raises if the set lacks it or has it in another class."""
    twins = []
    for recording in recordings:
        twin = shown_image(recording, images, config)
        label = images.labels[twin] if twin is not None and twin < len(images.labels) else None
        if label != recording.label:
            found = (
                "the static set lacks it" if label is None else f"which the static set has as {images.classes[label]!r}"
            )
            raise UserError(
                f"recording {recording.name}: shows image {recording.id} of its class, {found}; "
                "correct the folder, or use data.pairing: class"
            )
        twins.append(twin)
    return np.asarray(twins, dtype=np.int64)
