"""Sets of tonic as event sources, on small trees of the layouts that tonic expects; nothing is downloaded."""

import sys

import numpy as np
import pytest

from tmkt.cli import main
from tmkt.config import load_config
from tmkt.data import prepare
from tmkt.data.check import check_folder
from tmkt.data.sources.opening import open_events, open_pair
from tmkt.errors import UserError
from tmkt.training.trainer import train
from tmkt_kernels import events as ev

pytest.importorskip("tonic", reason="tonic is not installed")


def make_recording(rng, label, size, count=400):
    """Events on a bar whose position depends on the class."""
    events = np.zeros(count, ev.EVENT_DTYPE)
    events["x"], events["y"] = rng.integers(0, size, count), (5 * label + rng.integers(0, 3, count)) % size
    events["t"], events["p"] = np.sort(rng.integers(0, 300_000, count)), rng.integers(0, 2, count)
    return events


def nmnist(root, rng):
    """NMNIST/{Train,Test}/<digit>/<id>.bin, six and three recordings a digit."""
    for part, number in (("Train", 6), ("Test", 3)):
        for i in range(10 * number):
            path = root / f"NMNIST/{part}/{i % 10}/{i + 1:05d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            ev.write_bin(path, make_recording(rng, i % 10, size=34, count=80))


def gestures(root, rng):
    """DVSGesture/ibmGesture{Train,Test}/userNN_<lighting>/<class>.npy of x, y, p and t in ms."""
    for part, users in (("Train", ("user01_led", "user02_lab")), ("Test", ("user24_led",))):
        for user in users:
            folder = root / f"DVSGesture/ibmGesture{part}/{user}"
            folder.mkdir(parents=True)
            for label in range(11):
                made = make_recording(rng, label, size=128, count=90)
                np.save(folder / f"{label}.npy", np.stack([made["x"], made["y"], made["p"], made["t"] // 1000], axis=1))


def poker(root, rng):
    """POKERDVS/pips_{train,test}/<suit>/<id>.npy of t, x, y and p."""
    for part, number in (("train", 4), ("test", 2)):
        for label, suit in enumerate(("cl", "he", "di", "sp")):
            folder = root / f"POKERDVS/pips_{part}/{suit}"
            folder.mkdir(parents=True)
            for i in range(number):
                made = make_recording(rng, label, size=35, count=70)
                np.save(folder / f"{i}.npy", np.stack([made["t"], made["x"], made["y"], made["p"]], axis=1))


def caltech(root, rng):
    """NCALTECH101/Caltech101/<class>/image_0001.bin, of different sizes."""
    for label, name in enumerate(("ant", "bonsai")):
        folder = root / f"NCALTECH101/Caltech101/{name}"
        folder.mkdir(parents=True)
        for i in range(1, 11):
            ev.write_bin(folder / f"image_{i:04d}.bin", make_recording(rng, label, size=20 + i))


TREES = {"NMNIST": nmnist, "DVSGesture": gestures, "POKERDVS": poker, "NCALTECH101": caltech}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All of these sets in one folder."""
    root, rng = tmp_path_factory.mktemp("tonic"), np.random.default_rng(0)
    for make in TREES.values():
        make(root, rng)
    return root


@pytest.fixture
def settings(root, tmp_path):
    """settings(name, **keys of data.events) -> a configuration of events alone."""

    def load(name, /, **events):
        config = load_config(
            None,
            [
                "data.time_steps=3",
                "data.size=[16, 16]",
                "data.events.source=tonic",
                f"data.events.name={name}",
                f"data.events.root={root}",
                "data.events.sensor_size=null",
                "data.events.train_per_class=null",
                "data.events.validation_per_class=0",
                "transfer.method=events_only",
                "model.options={channels: [4, 8]}",
                "train.steps=2",
                "train.batch=4",
                "train.device=cpu",
                f"out={tmp_path / 'run'}",
            ],
        )
        return config.replace(**{f"data__events__{key}": value for key, value in events.items()})

    return load


TRAIN_AND_TEST = {"kwargs": {"train": True}, "test_kwargs": {"train": False}}


@pytest.mark.parametrize(
    ("name", "classes", "numbers", "first"),
    [
        ("NMNIST", [str(digit) for digit in range(10)], (60, 30), "0/00001"),
        ("DVSGesture", ["Hand clapping", "Right hand wave"], (22, 11), "Hand clapping/ibmGestureTrain_user01_led_0"),
        ("POKERDVS", ["cl", "he", "di", "sp"], (16, 8), "cl/"),
    ],
)
def test_sets_that_are_published_in_two_parts(settings, name, classes, numbers, first):
    config = settings(name, **TRAIN_AND_TEST)
    data = prepare(config)
    assert list(data.classes[: len(classes)]) == classes
    assert (len(data.train.events), len(data.test)) == numbers
    assert first in {name[: len(first)] for name in data.record["train"]}
    assert all(name.startswith("test:") for name in data.record["test"])
    assert data.test.frames.shape == (3, numbers[1], 2, 16, 16)
    score = train(config, data)
    assert score.total == numbers[1]


def test_a_recording_has_the_events_of_its_file(settings, root):
    data = prepare(settings("NMNIST", **TRAIN_AND_TEST).replace(data__size=(34, 34)))
    row = data.test.names.index("test:7/00018")
    expected = ev.to_frames(ev.read_bin(root / "NMNIST/Test/7/00018.bin"), 3, (34, 34))
    assert np.array_equal(data.test.frames[:, row], expected)
    assert data.test.labels[row] == 7


def test_labels_may_be_texts_and_recordings_of_any_size(settings):
    config = settings("NCALTECH101", split="ncaltech101")
    data = prepare(config)
    assert data.classes == ("ant", "bonsai")
    assert data.record["test"] == ["ant/image_0010", "bonsai/image_0010"]
    assert data.train.events.frames.sum((0, 2, 3, 4)).round().tolist() == [400] * 18


def test_a_set_is_paired_with_images_by_its_class_names(settings, tmp_path):
    config = settings("POKERDVS", **TRAIN_AND_TEST)
    config = config.replace(data__static__source="FakeData", data__static__kwargs={"num_classes": 4, "size": 20})
    with pytest.raises(UserError, match=r"POKERDVS has the class\(es\) cl, he, di, sp, none of 0, 1, 2, 3"):
        prepare(config.replace(transfer__method="tmkt"))
    rows = ["class,static,events", *(f"{suit},{i},{suit}" for i, suit in enumerate(("cl", "he", "di"))), ",3,sp"]
    (tmp_path / "map.csv").write_text("\n".join(rows) + "\n")
    data = prepare(config.replace(transfer__method="tmkt", data__classes=str(tmp_path / "map.csv")))
    assert data.classes == ("cl", "he", "di")
    assert len(data.train.events) == 12
    (tmp_path / "map.csv").write_text("\n".join([*rows, "new,,new"]) + "\n")
    with pytest.raises(UserError, match=r"POKERDVS has no recordings of the class\(es\) new"):
        prepare(
            config.replace(data__static__source="", data__static__kwargs={}, data__classes=str(tmp_path / "map.csv"))
        )


def test_transforms_are_applied_before_the_frames(settings):
    plain = prepare(settings("NMNIST", **TRAIN_AND_TEST)).test.frames
    cut = prepare(settings("NMNIST", **TRAIN_AND_TEST, transforms=[{"CropTime": {"max": 100_000}}])).test.frames
    assert 0 < cut.sum() < 0.5 * plain.sum()
    sizes = {"sensor_size": [34, 34, 2], "target_size": [16, 16]}
    small = settings("NMNIST", **TRAIN_AND_TEST, transforms=[{"Downsample": sizes}], sensor_size=(16, 16))
    assert prepare(small).test.frames.sum() == plain.sum().round()


def test_random_transforms_draw_the_same_each_time(settings):
    config = settings("NMNIST", **TRAIN_AND_TEST, transforms=[{"DropEvent": {"p": 0.5}}])
    before = np.random.get_state()[1].tolist()
    first, again = prepare(config).test.frames, prepare(config).test.frames
    assert np.array_equal(first, again)
    assert 0 < first.sum() < 0.7 * 80 * 30
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("name", ["NMNIST", "POKERDVS"])
def test_frames_are_cached_by_file_keywords_and_transforms(settings, tmp_path, name, monkeypatch):
    config = settings(name, **TRAIN_AND_TEST).replace(data__cache=str(tmp_path / "cache"))
    first = prepare(config).test.frames
    monkeypatch.setattr("tmkt.data.sources.tonic_sets.to_frames", None)
    assert np.array_equal(prepare(config).test.frames, first)
    monkeypatch.undo()
    cut = config.replace(data__events__transforms=[{"CropTime": {"max": 100_000}}])
    assert prepare(cut).test.frames.sum() < first.sum()


def test_the_command_prepares_a_set(settings, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text(settings("POKERDVS", **TRAIN_AND_TEST).dump())
    assert main(["data", "prepare", str(config), f"data.cache={tmp_path / 'cache'}"]) == 0
    assert "16 train, 0 validation, 8 test recordings" in capsys.readouterr().out
    with pytest.raises(UserError, match="sets of tonic are no folders to check"):
        check_folder(tmp_path, config=load_config(config))


@pytest.mark.parametrize("name", ["NMNIST", "CIFAR10DVS", "DVSLip", "ASLDVS"])
def test_nothing_is_downloaded_unless_told(settings, tmp_path, name, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)
    with pytest.raises(UserError, match=r"`tmkt data prepare CONFIG data\.events\.download=true` lets tonic download"):
        prepare(settings(name, root=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()


def test_tonic_downloads_where_told(settings, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("tonic.datasets.NMNIST.download", lambda self: asked.append(self.location_on_system))
    with pytest.raises(UserError, match="holds no recordings of NMNIST"):
        prepare(settings("NMNIST", root=str(tmp_path), download=True))
    assert asked == [str(tmp_path / "NMNIST")]


def test_a_damaged_file_is_named(settings, tmp_path):
    nmnist(tmp_path, np.random.default_rng(0))
    gestures(tmp_path, np.random.default_rng(0))
    (tmp_path / "NMNIST/Train/3/00004.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"recording .*NMNIST/Train/3/00004\.bin: "):
        prepare(settings("NMNIST", root=str(tmp_path), **TRAIN_AND_TEST))
    damaged = tmp_path / "DVSGesture/ibmGestureTest/user24_led/3.npy"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(UserError, match=r"recording .*user24_led/3\.npy: DVSGesture cannot be read"):
        prepare(settings("DVSGesture", root=str(tmp_path), **TRAIN_AND_TEST))


@pytest.mark.parametrize(
    ("name", "events", "message"),
    [
        ("SHD", {}, "data.events.name: SHD: its recordings are audio, of a row of frequencies"),
        ("SMNIST", {}, "SMNIST: its events are of a row of neurons"),
        ("DSEC", {}, "DSEC: its recordings do not have one class each"),
        ("NMINST", {}, "NMINST: is no set of tonic; expected one of ASLDVS, CIFAR10DVS, DVSGesture"),
        ("NMNIST", {"kwargs": {"trian": True}}, r"data.events.kwargs: NMNIST does not take {'trian': True}"),
        (
            "NMNIST",
            {"test_kwargs": {"save_to": "x"}},
            "test_kwargs: save_to is not taken: write it as data.events.root",
        ),
        ("NMNIST", {"kwargs": {"transform": "x"}}, "transform is not taken: write them as data.events.transforms"),
        ("NMNIST", {"root": ""}, "data.events.root: is empty; write the folder that holds, or shall hold, NMNIST/"),
        ("NMNIST", {"sensor_size": (30, 34)}, "sensor_size: NMNIST has 34x34 by tonic, got 30x34; give null"),
        ("NMNIST", {"transforms": [{"CropTimes": {}}]}, "transforms: 'CropTimes' is none of tonic's: CenterCrop, "),
        ("NMNIST", {"transforms": [{"np": {}}]}, "transforms: 'np' is none of tonic's"),
        ("NMNIST", {"transforms": [{"DropEvent": {"q": 1}}]}, "transforms: DropEvent does not take {'q': 1}"),
        ("NMNIST", {"transforms": [{"DropEvent": {}, "CropTime": {}}]}, "transforms: expected items such as {CropTime"),
        ("NMNIST", {"transforms": [{"CropTime": {"min": 10**9}}]}, "holds no events, or none is left after"),
        ("NMNIST", {"transforms": [{"ToImage": {"sensor_size": [34, 34, 2]}}]}, "expected a 1-d structured array"),
        ("NMNIST", {"split": "cifar10dvs"}, "data.events: split and test_kwargs both say what tests; give one"),
        ("NMNIST", {"window": (0, 0, 5, 5)}, "data.events.window: source tonic takes none"),
        ("NMNIST", {"test_root": "x"}, "data.events.test_root: source tonic has its test recordings by test_kwargs"),
        ("", {}, "data.events.name: source tonic needs a class of tonic.datasets"),
        ("NMNIST", {"source": "folder"}, "data.events.name: source folder does not take it; set source to tonic"),
    ],
)
def test_mistakes_are_named(settings, name, events, message):
    with pytest.raises(UserError, match=message):
        prepare(settings("NMNIST", **{**TRAIN_AND_TEST, "name": name, **events}))


def test_without_tonic_the_message_says_what_to_install(settings, monkeypatch):
    for module in ("datasets", "transforms"):
        monkeypatch.setitem(sys.modules, f"tonic.{module}", None)
    with pytest.raises(UserError, match=r"data\.events\.source: tonic cannot be imported .*; pip install tonic"):
        prepare(settings("NMNIST"))


def test_recordings_are_in_the_order_of_their_names(settings):
    config = settings("NMNIST", **TRAIN_AND_TEST)
    source, classes = open_pair(config)
    names = [recording.name for recording in open_events(config, source, classes, test=True).recordings()]
    assert names == sorted(names)
