"""Opening of the images and the recordings that a configuration names, without loading them."""

from pathlib import Path

import numpy as np
import torch

from ...config import Config, DataConfig
from ..bundled import ClassMap, load_class_map
from ..layouts import list_recordings
from .events import EventSource
from .folder import FolderEvents, StrokeEvents
from .images import StaticSource, open_static
from .simulated import SimulatedEvents
from .tonic_sets import TonicEvents


def open_pair(config: Config) -> tuple[StaticSource, ClassMap]:
    """Open the static set under the classes of the pair, and the class map of the recordings' folders.

    With recordings alone (events_only without a static set), these define the classes, and each has one black image.
    """
    if not has_images(config):
        named, events = config.data.classes, config.data.events
        if named:
            classes = load_class_map(named)
        elif events.source == "tonic":
            classes = ClassMap.same(TonicEvents(config.data).names)
        else:
            classes = list_recordings(events.root, events).classes()
        black = torch.zeros(1, 1, 1, dtype=torch.uint8)
        return StaticSource(np.arange(len(classes.names)), classes.names, lambda _: black), classes
    source = open_static(config.data.static)
    classes = load_class_map(config.data.classes) if config.data.classes else ClassMap.same(source.classes)
    return source.mapped(classes), classes


def has_images(config: Config) -> bool:
    """Return whether the run has a static set. Without one it learns from recordings, if none is simulated."""
    simulates = config.data.events.source == "simulated" or config.simulated is not None
    alone = config.transfer.method == "events_only" and not simulates
    return bool(config.data.static.source) or not alone


def as_recorded(config: Config) -> Config:
    """Return `config` with events.source camera written as a folder of recordings to validate and test on."""
    events = config.data.events
    if events.source != "camera":
        return config
    folder = {"source": "folder", "root": events.test_root, "test_root": "", "train_per_class": 0}
    data = config.data.model_copy(update={"events": events.model_copy(update=folder)})
    return config.model_copy(update={"data": data})


def open_events(config: Config, images: StaticSource, classes: ClassMap, *, test: bool = False) -> EventSource:
    """Open the recordings of `config`, or its test set (`EventsConfig.has_test_set`).

    Args:
        images: images to simulate from, if they are simulated.
        classes: meaning of the class folders.

    Raises:
        UserError: root is not a folder, or a setting is missing.
    """
    events = config.data.events
    if events.source == "simulated":
        return SimulatedEvents(images, config.data, config.seed)
    if events.source == "tonic":
        return TonicEvents(config.data, test=test).mapped(classes)
    return open_folder(events.test_root if test else events.root, classes, config.data)


def open_folder(root: str | Path, classes: ClassMap, config: DataConfig, *, every_class: bool = True) -> FolderEvents:
    """Open the recordings in files under `root`, see `FolderEvents`; pen strokes if `config` says so."""
    kind: type[FolderEvents] = StrokeEvents if config.events.source == "strokes" else FolderEvents
    return kind(root, classes, config, every_class=every_class)
