"""The images and the recordings that a configuration names, opened but not loaded."""

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


def open_pair(config: Config) -> tuple[StaticSource, ClassMap]:
    """The static set under the classes of the pair, and what the recordings' folders mean.

    Recordings alone (events_only without a static set) say the classes themselves; a black image stands for each class.
    """
    if not has_images(config):
        named, events = config.data.classes, config.data.events
        classes = load_class_map(named) if named else list_recordings(events.root, events).classes()
        black = torch.zeros(1, 1, 1, dtype=torch.uint8)
        return StaticSource(np.arange(len(classes.names)), classes.names, lambda _: black), classes
    source = open_static(config.data.static)
    classes = load_class_map(config.data.classes) if config.data.classes else ClassMap.same(source.classes)
    return source.mapped(classes), classes


def has_images(config: Config) -> bool:
    """Whether the run has a static set. Without one it learns from recordings alone, if they are not made of images."""
    alone = config.transfer.method == "events_only" and config.data.events.source != "simulated"
    return bool(config.data.static.source) or not alone


def open_events(config: Config, images: StaticSource, classes: ClassMap, root: str | Path | None = None) -> EventSource:
    """The recordings of `config`, or those in another folder `root`.

    Args:
        images: what they are simulated from, if they are.
        classes: what their class folders mean.

    Raises:
        UserError: the folder is none, or a setting is missing.
    """
    if config.data.events.source == "simulated":
        return SimulatedEvents(images, config.data, config.seed)
    return open_folder(root or config.data.events.root, classes, config.data)


def open_folder(root: str | Path, classes: ClassMap, config: DataConfig, *, every_class: bool = True) -> FolderEvents:
    """The recordings under `root` in files, see `FolderEvents`; of pen strokes if `config` says so."""
    kind: type[FolderEvents] = StrokeEvents if config.events.source == "strokes" else FolderEvents
    return kind(root, classes, config, every_class=every_class)
