"""A set of images as a set of simulated recordings: one of each image, split as published sets are."""

import numpy as np
import pytest
import torch
from PIL import Image

from tmkt.config import load_config
from tmkt.data import prepare
from tmkt.data.sources.opening import open_events, open_pair
from tmkt.errors import UserError
from tmkt_kernels import events as ev

PER_CLASS = 10


@pytest.fixture
def images(tmp_path):
    """Two classes of ten images, of different sizes, in a folder."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(1, PER_CLASS + 1):
            side = (24 + 2 * i, 20)
            blocks = Image.fromarray(rng.integers(0, 256, (5, 6), dtype=np.uint8))
            blocks.resize(side).save(tmp_path / f"images/{name}/image_{i:04d}.png")
    return tmp_path / "images"


@pytest.fixture
def config(images):
    settings = [
        "data.time_steps=2",
        "data.size=[12, 12]",
        "data.static.source=folder",
        f"data.static.root={images}",
        "data.static.exclude_twins=name",
        "data.events.source=simulated",
        "data.events.simulator=ncaltech101",
        "data.events.sensor_size=null",
        "data.events.split=ncaltech101",
        "data.events.train_per_class=null",
        "data.events.validation_per_class=0",
    ]
    return load_config(None, settings)


def shown(data, part):
    return sorted(name.rpartition("_")[2] for name in data.record[part] if name.startswith("cat/"))


def test_every_image_has_a_recording_and_the_first_of_each_class_train(config):
    data = prepare(config)
    assert shown(data, "train") == [f"{i:04d}" for i in range(1, 10)]
    assert shown(data, "test") == ["0010"]
    assert data.record["static_images"] == [*range(9), *range(10, 19)]
    assert (data.train.events.frames.sum((0, 2, 3, 4)) > 100).all()


def test_twins_of_held_out_recordings_are_images_where_the_rule_is_none(config, capsys):
    data = prepare(config.replace(data__static__exclude_twins="none"))
    assert data.record["static_images"] == list(range(20))
    assert "may hold the images that the 2 held-out recordings are simulated from" in capsys.readouterr().err
    same = prepare(config)
    assert capsys.readouterr().err == ""
    assert torch.equal(same.test.frames, data.test.frames)


def test_fewer_recordings_to_train_on_leave_the_images(config):
    few, all_of_them = prepare(config.replace(data__events__train_per_class=2)), prepare(config)
    assert len(few.train.events) == 4
    assert few.record["static_images"] == all_of_them.record["static_images"]
    assert few.record["test"] == all_of_them.record["test"]


def test_counts_leave_all_others_to_the_test(config):
    counts = {"data__events__split": "", "data__events__train_per_class": 5, "data__events__validation_per_class": 2}
    data = prepare(config.replace(**counts))
    parts = [set(data.record[part]) for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [10, 4, 6]
    assert len(set.union(*parts)) == 20
    source, _ = open_pair(config)
    images = {f"{source.files[i].parent.name}/{source.files[i].stem}" for i in data.record["static_images"]}
    assert images == parts[0]


def test_a_recording_has_the_size_that_its_image_covers_on_the_display(config, monkeypatch):
    sizes, simulate = [], ev.simulate_recording

    def spy(*args, sensor_size, **kwargs):
        sizes.append(sensor_size)
        return simulate(*args, sensor_size=sensor_size, **kwargs)

    monkeypatch.setattr("tmkt_kernels.events.simulate_recording", spy)
    source, classes = open_pair(config)
    events = open_events(config, source, classes)
    first, last = events.recordings()[0], events.recordings()[9]
    assert events.frames(first).sum() > 1000
    assert events.frames(last).dtype == np.float32
    assert sizes == [
        (round(180 / 20 * 26 / 1.047), round(180 / 1.047)),
        (round(240 / 1.047), round(240 / 44 * 20 / 1.047)),
    ]
    drift = open_events(config.replace(data__events__simulator="drift"), source, classes)
    drift.frames(first)
    assert sizes[2] == (26, 20)  # the image's own


def test_recordings_are_the_same_for_every_seed_and_cached_once(config, tmp_path, monkeypatch):
    config = config.replace(data__cache=str(tmp_path / "cache"))
    first = prepare(config)
    monkeypatch.setattr("tmkt.data.sources.simulated.SIMULATORS", {})
    again = prepare(config.replace(seed=7))
    assert torch.equal(again.train.events.frames, first.train.events.frames)


def test_a_changed_image_is_simulated_anew(config, images, tmp_path):
    config = config.replace(data__cache=str(tmp_path / "cache"))
    first = prepare(config).test
    Image.new("L", (30, 20), 9).save(images / "cat/image_0010.png")
    changed = (prepare(config).test.frames != first.frames).flatten(2).any(2).any(0)
    assert changed.tolist() == [True, False]


def test_a_set_without_files_is_split_in_its_order():
    settings = ["data.static.source=sklearn_digits", "data.events.source=simulated", "data.events.split=cifar10dvs"]
    config = load_config(None, [*settings, "data.time_steps=1"])
    source, classes = open_pair(config)
    names = [recording.name for recording in open_events(config, source, classes).recordings()]
    assert [int(name.rpartition("/")[2]) for name in names] == list(range(1797))
    assert sorted(names, key=lambda name: name.rpartition("/")[2]) == names


def test_two_images_of_one_name_are_named(config, images):
    Image.open(images / "dog/image_0003.png").save(images / "dog/image_0003.bmp")
    with pytest.raises(UserError, match=r"0003\.bmp and .*0003\.png: expected one image dog/image_0003; rename one"):
        prepare(config)


def test_a_display_of_too_many_pixels_is_named(config):
    with pytest.raises(UserError, match=r"simulated recording cat/image_0001: sensor_size"):
        prepare(config.replace(data__events__sensor_size=(40_000, 4)))
