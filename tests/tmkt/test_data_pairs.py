"""Every configuration of a published pair starts to train on a small tree of the published layout."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import recorded
import scipy.io
import torch
from PIL import Image

from tmkt.config import load_config
from tmkt.data import prepare, sample_pairs
from tmkt.data.bundled import load_class_map, load_protocol
from tmkt.data.readers import read_recording
from tmkt.data.sources.opening import open_pair
from tmkt.errors import UserError
from tmkt.training.trainer import train
from tmkt_kernels import events as ev

CONFIGS = Path(__file__).parents[2] / "configs"
RNG = np.random.default_rng(0)
TINY = ["train.steps=2", "train.batch=4", "train.warmup=1", "train.device=cpu", "data.time_steps=2"]
SMALL = ["model.name=small", "model.options={channels: [4, 8]}"]
VGG = ["data.size=[16, 16]"]  # one pixel is left after its four poolings


def write_image(path: Path, side: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def random_events(size: int) -> np.ndarray:
    events = np.zeros(60, ev.EVENT_DTYPE)
    events["x"], events["y"] = RNG.integers(0, size, (2, 60))
    events["t"], events["p"] = np.sort(RNG.integers(0, 300_000, 60)), RNG.integers(0, 2, 60)
    return events


def write_recorded(path: Path, encoding: str, events: np.ndarray) -> None:
    """Write a recorded format by the layout of its words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(recorded.file_of(encoding, [tuple(map(int, event)) for event in events]))


def write_bin(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ev.write_bin(path, random_events(size))


def ncaltech101(root, sample):
    for folder in load_class_map("ncaltech101").static:
        for i in range(1, 7):
            write_image(root / f"caltech101/101_ObjectCategories/{folder}/image_{i:04d}.jpg")
            if folder != "Faces":
                write_bin(root / f"N-Caltech101/Caltech101/{folder}/image_{i:04d}.bin", size=10 + i)
    return VGG


def cifar10dvs(root, sample):
    batches = root / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    names = list(load_class_map("cifar10").names)
    for name in (*[f"data_batch_{i}" for i in range(1, 6)], "test_batch"):
        entry = {"data": RNG.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
        (batches / name).write_bytes(pickle.dumps(entry))
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    for name in names:
        (root / "CIFAR10DVS" / name).mkdir(parents=True)
        for i in range(5):
            write_recorded(root / f"CIFAR10DVS/{name}/cifar10_{name}_{i}.aedat", "dvs128", random_events(128))
    return VGG


def dvsgesture(root, sample):
    """Three trials of twelve gestures, arm_roll twice, as IBM's archive unpacks."""
    classes = [*range(1, 12), 8]
    for k, trial in enumerate(("user01_fluorescent", "user01_led", "user24_led")):
        edges = [
            2**31 - 10**6 + 300_000 * (2 * i) for i in range(12)
        ]  # the first million us precede a turn of the clock
        pieces = []
        for edge in edges:
            pieces.append(random_events(128))
            pieces[-1]["t"] += edge + k
        write_recorded(root / f"DvsGesture/{trial}.aedat", "aedat3", np.concatenate(pieces))
        rows = [f"{label},{edge},{edge + 300_010}" for label, edge in zip(classes, edges, strict=True)]
        table = "\n".join(["class,startTime_usec,endTime_usec", *rows]) + "\n"
        (root / f"DvsGesture/{trial}_labels.csv").write_text(table)
    (root / "DvsGesture/gesture_mapping.csv").write_text("Action,Label\nhand_clapping,1\n")
    (root / "DvsGesture/trials_to_train.txt").write_text("user01_fluorescent.aedat\nuser01_led.aedat\n")
    (root / "DvsGesture/trials_to_test.txt").write_text("user24_led.aedat\n")
    return VGG


def nomniglot(root, sample):
    times = read_recording(sample).events["t"]
    edges = times[np.linspace(0, len(times) - 1, 21).astype(int)]
    for part in ("background", "evaluation"):
        for character in ("character01", "character02"):
            for k in range(1, 21):
                write_image(root / f"omniglot-py/images_{part}/Alpha_{part}/{character}/0001_{k:02d}.png")
            folder = root / f"N-Omniglot/dvs_{part}/Alpha_{part}/{character}"
            folder.mkdir(parents=True)
            (folder / "0001.aedat4").symlink_to(sample)
            rows = [f"{k},{edges[k]},{edges[k + 1]}" for k in range(20)]
            (folder / "0001.csv").write_text("\n".join(["index,start,end", *rows]) + "\n")
    return ["data.events.sensor_size=null", *SMALL]


def cepdvs(root, sample):
    lines = ["path,class"]
    for i, name in enumerate(load_class_map("cep").names * 5):
        write_image(root / f"CEP-DVS/data/img/{i:05d}.jpg")
        events = random_events(16)
        path = root / f"CEP-DVS/data/MAT/img/{i:05d}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"x": events["x"], "y": events["y"], "ts": events["t"], "p": 2 * events["p"].astype(int) - 1}
        scipy.io.savemat(path, columns)
        lines.append(f"{i}    {name} some_fine_class")
    (root / "CEP-DVS/pathFile.csv").write_text("\n".join(lines) + "\n")
    return VGG


def nmnist_full(root, sample):
    raw = root / "MNIST/raw"
    raw.mkdir(parents=True)
    labels = np.arange(60, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        images = RNG.integers(0, 256, (60, 28, 28), dtype=np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            np.array([2051, 60, 28, 28], ">i4").tobytes() + images.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(np.array([2049, 60], ">i4").tobytes() + labels.tobytes())
    for i, label in enumerate(labels, 1):
        for part in ("Train", "Test"):
            write_bin(root / f"N-MNIST/{part}/{label}/{i:05d}.bin", size=34)
    return ["data.events.validation_per_class=2", *SMALL]


def nmnist(root, sample):
    nmnist_full(root, sample)
    counts = {"train": 2, "validation": 1, "test": 3}
    return [*(f"data.events.{part}_per_class={count}" for part, count in counts.items()), *SMALL]


def nmnist_camera(root, sample):
    nmnist_full(root, sample)
    return ["data.events.validation_per_class=1", "data.events.test_per_class=3"]


def cifar10_simulated(root, sample):
    cifar10dvs(root, sample)
    counts = {"train": 2, "validation": 1, "test": 3}
    return [*(f"data.events.{part}_per_class={count}" for part, count in counts.items()), *SMALL]


def ncaltech101_simulated(root, sample):
    """Narrow images of a single edge, because others take longer to simulate."""
    for folder in load_class_map("ncaltech101").static:
        for i in range(1, 6):
            path = root / f"caltech101/101_ObjectCategories/{folder}/image_{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array([[0, 255]], np.uint8)).resize((24, 1 + i % 2)).save(path)
    return VGG


PUBLISHED = (ncaltech101, cifar10dvs, nomniglot, cepdvs, nmnist_full, nmnist, dvsgesture)
PAIRS = {f.__name__: f for f in (*PUBLISHED, nmnist_camera, cifar10_simulated, ncaltech101_simulated)}
EXPECTED = {  # classes, training, validation and test recordings
    "ncaltech101": (100, 500, 0, 100),
    "cifar10dvs": (10, 40, 0, 10),
    "nomniglot": (4, 60, 0, 20),
    "cepdvs": (20, 40, 0, 20),
    "nmnist_full": (10, 40, 20, 60),
    "nmnist": (10, 20, 10, 30),
    "nmnist_camera": (10, 0, 10, 30),
    "cifar10_simulated": (10, 20, 10, 30),
    "dvsgesture": (11, 24, 0, 12),
    "ncaltech101_simulated": (100, 400, 0, 100),
}


@pytest.fixture
def pair(request, tmp_path, monkeypatch):
    """The configuration of a pair on a small tree of its layout, with a fixed seed of file names and sizes."""
    name = request.param
    sample = None
    if name == "nomniglot":  # no library writes AEDAT 4.0
        sample = request.getfixturevalue("shared_data") / "formats/sample.aedat4"
    monkeypatch.setenv("TMKT_DATA", str(tmp_path / "data"))
    # torchvision knows the published archives by check sum, and ours are small.
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    settings = PAIRS[name](tmp_path / "data", sample)
    return load_config(
        CONFIGS / f"{name}.yaml", [*TINY, *settings, f"out={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, indirect=True)
def test_training_starts_on_the_published_layout(pair, tmp_path, request):
    data = prepare(pair)
    parts = (data.train.events, data.validation, data.test)
    assert (len(data.classes), *map(len, parts)) == EXPECTED[request.node.callspec.params["pair"]]
    names = [set(part.names) for part in parts]
    assert sum(map(len, names)) == len(set().union(*names)) == sum(map(len, parts))
    score = train(pair, data)
    assert score.total == len(data.test)
    assert np.isfinite(score.loss)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == sum(len(part) > 0 for part in parts) + (
        pair.data.static.source in ("folder", "cep_dvs")  # images are cached if each is a file
    )


@pytest.mark.parametrize("pair", ["ncaltech101"], indirect=True)
def test_first_of_each_class_train_and_twins_of_the_others_are_unseen(pair):
    data = prepare(pair)
    assert {name.rpartition("/")[2] for name in data.test.names} == {"image_0006"}
    assert len(data.record["static_images"]) == 5 * len(data.classes)  # of 6 of each
    assert "Faces" not in data.classes
    assert "BACKGROUND_Google" not in data.classes


@pytest.mark.parametrize("pair", ["dvsgesture"], indirect=True)
def test_lists_that_come_with_a_set_decide_on_its_split(pair):
    data = prepare(pair)
    trials = [{name.rpartition("/")[2][:-3] for name in data.record[part]} for part in ("train", "test")]
    assert trials == [{"user01_fluorescent", "user01_led"}, {"user24_led"}]
    assert torch.bincount(data.test.labels).tolist() == [2 if name == "arm_roll" else 1 for name in data.classes]
    assert data.test.frames.sum((0, 2, 3, 4)).round().tolist() == [60] * 12


@pytest.mark.parametrize("pair", ["cifar10dvs"], indirect=True)
def test_an_aedat_recording_gives_its_events(pair, tmp_path):
    data = prepare(pair.replace(data__size=(128, 128)))
    name = data.test.names[0]
    expected = read_recording(tmp_path / f"data/CIFAR10DVS/{name}.aedat").events
    assert np.array_equal(data.test.frames[:, 0], ev.to_frames(expected, 2, (128, 128)))


@pytest.mark.parametrize("pair", ["nomniglot", "nmnist_full", "cepdvs"], indirect=True)
def test_exact_twins(pair):
    data = prepare(pair.replace(data__pairing="twin"))
    images = data.record["static_images"]
    source, _ = open_pair(pair)
    pairs = sample_pairs(data.train, 12, torch.Generator().manual_seed(0))
    for static, event, label in zip(pairs.static_index, pairs.event_index, pairs.label, strict=True):
        image, name = images[static], data.train.events.names[event].rpartition("/")[2]
        assert source.labels[image] == label
        assert (source.files[image].stem if source.files else f"{image + 1:05d}") == name


@pytest.mark.parametrize("pair", ["cepdvs"], indirect=True)
def test_a_damaged_image_is_named(pair, tmp_path):
    path = sorted((tmp_path / "data/CEP-DVS/data/img").iterdir())[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"image .*{path.name}: cannot be read"):
        prepare(pair)


@pytest.mark.parametrize("pair", ["cepdvs"], indirect=True)
def test_a_changed_image_is_read_anew(pair, tmp_path):
    first = prepare(pair)
    path = tmp_path / f"data/CEP-DVS/data/img/{first.record['static_images'][0]:05d}.jpg"
    Image.new("RGB", (20, 20), (7, 7, 7)).save(path)
    assert set(prepare(pair).train.images[0].flatten().tolist()) == {7}


@pytest.mark.parametrize("pair", ["ncaltech101"], indirect=True)
def test_a_class_that_the_map_lacks_is_named(pair, tmp_path):
    write_image(tmp_path / "data/caltech101/101_ObjectCategories/new_class/image_0001.jpg")
    with pytest.raises(UserError, match=r"the static set has the class\(es\) new_class, which the map lacks"):
        prepare(pair)


def test_twins_need_to_be_known(tiny):
    with pytest.raises(UserError, match=r"data.pairing: twin needs data.static.exclude_twins"):
        prepare(tiny.replace(data__pairing="twin"))


def test_twins_leave_no_choice_of_images(tiny):
    tiny = tiny.replace(data__pairing="twin", data__static__exclude_twins="name", data__static__per_class=3)
    with pytest.raises(UserError, match=r"data.static.per_class: with data.pairing: twin"):
        prepare(tiny)


def test_class_maps_hold_the_published_counts():
    counts = {name: len(load_class_map(name).names) for name in ("ncaltech101", "cifar10", "cep", "dvsgesture")}
    assert counts == {"ncaltech101": 100, "cifar10": 10, "cep": 20, "dvsgesture": 11}
    background = load_class_map("ncaltech101_background")
    assert len(background.names) == 101
    assert background.static["Faces"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "expected a first line"),
        ("class,static,events\na,b\n", "expected class,static,events; got 'a,b'"),
        ("class,static,events\na,x,y\nb,x,z\n", "'x' is mapped twice"),
    ],
)
def test_mistakes_in_class_maps_are_named(tmp_path, text, message):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load_class_map(str(tmp_path / "m.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("order: name\ntrain: 0.9\n", "p.yaml: test: is missing; expected a number in \\(0, 1\\)"),
        ("{order: size, train: 0.5, test: 0.5}", "p.yaml: order: expected one of name, random, listed; got 'size'"),
        ("{order: name, train: 1, test: 0.2}", r"p.yaml: train: expected a number in \(0, 1\), got 1$"),
        ("{order: name, train: 0.9, tset: 0.1}", "p.yaml: unknown key tset; the nearest known one is test"),
        ("[1]", r"p.yaml: expected a section of `key: value`, got \[1\]"),
        ("{order: listed, train: 0.9}", "p.yaml: train: order listed takes no share"),
        ("{order: name, train: 0.9, test: 0.2}", r"p.yaml: train \+ test is 1.1, more than there is"),
    ],
)
def test_mistakes_in_protocols_are_named(tmp_path, text, message):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_protocol(str(tmp_path / "p.yaml"))


def test_unknown_names_list_the_known():
    with pytest.raises(UserError, match="expected one of cep, cifar10, dvsgesture, ncaltech101"):
        load_class_map("nothing")
    with pytest.raises(UserError, match="expected one of cepdvs, cifar10dvs, dvsgesture, ncaltech101, nomniglot"):
        load_protocol("nothing")
