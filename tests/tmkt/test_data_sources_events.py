"""Sources of recordings: all have the same interface."""

import numpy as np
import pytest
import torch

from tmkt.config import load_config
from tmkt.data.bundled import ClassMap
from tmkt.data.loading import load_events
from tmkt.data.sources.folder import FolderEvents, StrokeEvents
from tmkt.data.sources.images import StaticSource
from tmkt.data.sources.opening import open_events
from tmkt.data.sources.simulated import SimulatedEvents
from tmkt.data.twins import shown_image

CLASSES = ClassMap.same(("cat", "dog"))


def images(files=None):
    """Four images, two per class, each of a single grey level."""
    read = lambda i: torch.full((1, 16, 16), 60 * i, dtype=torch.uint8)  # noqa: E731
    return StaticSource(np.array([0, 0, 1, 1]), CLASSES.names, read, files)


@pytest.fixture
def strokes(tmp_path):
    for name in ("cat/a", "dog/b"):
        path = tmp_path / "strokes" / f"{name}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("START\n10,-10,0\n90,-90,100\nBREAK\n")
    return tmp_path / "strokes"


SIZES = ["data.time_steps=4", "data.size=[16, 16]", "data.events.sensor_size=[16, 16]"]


@pytest.fixture(params=["folder", "strokes", "simulated"])
def source(request, recordings, strokes):
    """(configuration, source) of each kind."""
    root = {"folder": recordings, "strokes": strokes, "simulated": ""}[request.param]
    settings = [*SIZES, f"data.events.source={request.param}", "data.events.test_per_class=1"]
    config = load_config(None, settings).replace(data__events__root=str(root))
    classes = ClassMap.same(("0", "1", "2")) if request.param == "folder" else CLASSES
    kind = {"folder": FolderEvents, "strokes": StrokeEvents, "simulated": SimulatedEvents}[request.param]
    opened = open_events(config, images(), classes)
    assert type(opened) is kind
    return config, opened


def test_every_source_gives_recordings_with_frames_of_the_configured_size(source):
    config, events = source
    found = events.recordings()
    assert [recording.index for recording in found] == list(range(len(found)))
    assert len({recording.name for recording in found}) == len(found) >= 2
    frames = events.frames(found[-1])
    assert frames.shape == (4, 2, 16, 16)
    assert np.array_equal(events.frames(found[-1]), frames)
    loaded = load_events(events, found[-2:], config.data, "recordings")
    assert np.array_equal(loaded.frames[:, 1], frames)
    assert loaded.labels.tolist() == [recording.label for recording in found[-2:]]
    assert len(load_events(events, [], config.data, "recordings")) == 0


def test_the_cache_tells_recordings_apart(source):
    _, events = source
    found = events.recordings()
    _, entries = events.key(found)
    assert len({entry.name for entry in entries}) == len(found)


def test_simulated_recordings_are_made_of_the_images_that_they_show():
    config = load_config(None, [*SIZES, "data.events.source=simulated", "data.events.test_per_class=1"])
    found = open_events(config, images(), CLASSES).recordings()
    assert [recording.image for recording in found] == [0, 1, 2, 3]
    assert [shown_image(recording, images(), config.data.static) for recording in found] == [0, 1, 2, 3]


def test_strokes_show_the_image_of_their_class_and_name(strokes):
    config = load_config(None, [*SIZES, "data.events.source=strokes", "data.static.exclude_twins=name"])
    config = config.replace(data__events__root=str(strokes))
    known = images([strokes / f"{name}.png" for name in ("cat/c", "cat/a", "dog/a", "dog/d")])
    found = open_events(config, known, CLASSES).recordings()
    assert [shown_image(recording, known, config.data.static) for recording in found] == [1, None]


def test_without_a_rule_no_image_is_known(source):
    config, events = source
    shown = [shown_image(recording, images(), config.data.static) for recording in events.recordings()]
    assert shown == [recording.image for recording in events.recordings()]
