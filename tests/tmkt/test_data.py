"""Data: classes, splits, the leak guard, pairs, crops, and messages about damaged folders."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tmkt.cli import main
from tmkt.config import load_config
from tmkt.data import EventFrames, PairedData, prepare, sample_pairs
from tmkt.data.augment import Augmentation, crop
from tmkt.data.prepare import load_folder
from tmkt.data.sources.images import fit_image, open_static, value_channel
from tmkt.data.sources.opening import open_events, open_pair
from tmkt.data.splits import choose_images, split_recordings
from tmkt.errors import UserError
from tmkt.training.evaluation import evaluate_run
from tmkt.training.trainer import train
from tmkt_kernels import events as ev


def names(events):
    return set(events.names)


def test_split_is_disjoint_complete_and_per_class(tiny):
    data = prepare(tiny)
    parts = [data.train.events, data.validation, data.test]
    assert [torch.bincount(part.labels).tolist() for part in parts] == [[3] * 3, [2] * 3, [3] * 3]
    assert len(set().union(*map(names, parts))) == 24
    for part in parts:
        assert [int(name[0]) for name in part.names] == part.labels.tolist()
        assert part.frames.shape == (4, len(part), 2, 16, 16)


def test_split_depends_on_the_seed_and_held_out_parts_not_on_the_training_size(tiny):
    tiny = tiny.replace(data__events__test_per_class=2)
    first, again, other = prepare(tiny), prepare(tiny), prepare(tiny.replace(seed=1))
    assert first.record == again.record
    assert first.record["test"] != other.record["test"]
    fewer = prepare(tiny.replace(data__events__train_per_class=1))
    assert fewer.record["test"] == first.record["test"]
    assert fewer.record["validation"] == first.record["validation"]
    assert names(fewer.train.events) < names(first.train.events)


def test_frames_belong_to_their_recording(tiny, recordings):
    data = prepare(tiny)
    for row, name in enumerate(data.test.names):
        events = ev.read_bin(recordings / f"{name}.bin")
        frames = ev.to_frames(events, 4, sensor_size=(16, 16))
        assert np.array_equal(data.test.frames[:, row].numpy(), frames)


def test_pairs_share_their_class_and_are_balanced(tiny):
    data = prepare(tiny).train
    image_labels = torch.empty(len(data.images), dtype=torch.int64)
    for label, (start, size) in enumerate(zip(*data.static_by_class[1:], strict=True)):
        image_labels[data.static_by_class.order[start : start + size]] = label
    pairs = sample_pairs(data, 300, torch.Generator().manual_seed(0), Augmentation(padding=2))
    assert torch.equal(image_labels[pairs.static_index], pairs.label)
    assert torch.equal(data.events.labels[pairs.event_index], pairs.label)
    assert torch.bincount(pairs.label).tolist() == [100] * 3
    assert len(pairs.event_index.unique()) == 9
    assert len(pairs.static_index.unique()) > 20
    assert sorted(pairs.transform.offset.unique().tolist()) == [-2, -1, 0, 1, 2]
    again = sample_pairs(data, 300, torch.Generator().manual_seed(0), Augmentation(padding=2))
    assert all(torch.equal(a, b) for a, b in zip((*pairs[:3], *pairs[3]), (*again[:3], *again[3]), strict=True))


def test_a_class_without_samples_is_an_error():
    events = EventFrames(torch.zeros(2, 1, 2, 4, 4), torch.tensor([0]), ("0/1",))
    with pytest.raises(ValueError, match="recordings: class 1 has none"):
        PairedData(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), events, 2)


def test_a_crop_shifts_all_steps_of_a_sample_alike():
    x_seq = torch.rand(3, 2, 2, 6, 6)
    cropped = crop(x_seq, torch.tensor([[0, 0], [-2, 1]]))
    assert torch.equal(cropped[:, 0], x_seq[:, 0])
    assert torch.equal(cropped[:, 1, :, 2:, :5], x_seq[:, 1, :, :4, 1:])
    assert not cropped[:, 1, :, :2].any()
    assert not cropped[:, 1, :, :, 5].any()


def test_simulated_recordings_are_of_images_that_the_static_set_does_not_hold():
    settings = [
        "data.static.source=sklearn_digits",
        "data.events.source=simulated",
        "data.time_steps=3",
        "data.events.train_per_class=1",
        "data.events.validation_per_class=1",
        "data.events.test_per_class=2",
    ]
    data = prepare(load_config(None, settings))
    simulated = {int(name.split("/")[1]) for part in ("train", "validation", "test") for name in data.record[part]}
    assert len(simulated) == 40
    assert simulated.isdisjoint(data.record["static_images"])
    assert len(data.record["static_images"]) == 1797 - 40
    labels = open_static(load_config(None, settings).data.static).labels
    assert [labels[int(n.split("/")[1])] for n in data.test.names] == data.test.labels.tolist()
    assert (data.test.frames.sum((0, 2, 3, 4)) > 100).all()  # each recording has events
    again = prepare(load_config(None, settings))
    assert torch.equal(again.test.frames, data.test.frames)


def test_twins_of_held_out_recordings_are_not_among_the_images(shared_data):
    settings = [
        "data.static.source=MNIST",
        f"data.static.root={shared_data}",
        "data.static.kwargs={train: true}",
        "data.static.fit=pad",
        "data.static.exclude_twins=nmnist",
        f"data.events.root={shared_data / 'N-MNIST-small/Train'}",
        "data.events.train_per_class=60",
    ]
    config = load_config(None, settings)
    source, classes = open_pair(config)
    recordings = open_events(config, source, classes).recordings()
    split = split_recordings(recordings, source.classes, config.data.events, config.seed)
    images = set(choose_images(config, source, split)[0].tolist())
    held_out = {int(r.id) - 1 for r in [*split.validation, *split.test]}
    assert len(held_out) == 200
    assert images == set(range(59_800)) - held_out
    # The rule itself: recording <id> shows image <id> - 1, so their classes agree.
    assert all(source.labels[int(r.id) - 1] == r.label for r in recordings)


def test_per_class_limits_the_images(tiny):
    data = prepare(tiny.replace(data__static__per_class=4))
    assert data.train.static_by_class.size.tolist() == [4] * 3


def test_value_channel_is_the_largest_colour():
    image = Image.fromarray(np.array([[[10, 200, 30], [5, 0, 90]]], dtype=np.uint8))
    assert value_channel(image).tolist() == [[[200, 90]]]
    assert value_channel(Image.new("L", (2, 1), 7)).tolist() == [[[7, 7]]]


def test_fit():
    image = torch.full((1, 4, 6), 9, dtype=torch.uint8)
    padded = fit_image(image, (8, 8), "pad")
    assert padded.shape == (1, 8, 8)
    assert padded[0, 2:6, 1:7].min() == 9
    assert padded.sum() == image.sum()
    assert fit_image(image, (8, 5), "resize").shape == (1, 5, 8)
    with pytest.raises(UserError, match=r"pad needs images no larger than data.size 5x8, got 6x4"):
        fit_image(image, (5, 8), "pad")


def test_image_folder_by_class_name(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (5, 4), (1, 2, 3)).save(tmp_path / name / "a.png")
    source = open_static(
        load_config(None, ["data.static.source=ImageFolder", f"data.static.root={tmp_path}"]).data.static
    )
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 1]
    assert source.read(1).tolist() == [[[3] * 5] * 4]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("source=Nothing", "'Nothing' is neither a set of torchvision that has images"),
        ("source=VisionDataset2", "neither a set of torchvision that has images"),
        ("source=ImageFolder", "data.static.root: '' is not a folder"),
        ("kwargs={sise: 3}", "data.static.kwargs: FakeData does not take"),
        ("exclude_twins=nmnist", "nmnist is about the training images of MNIST"),
    ],
)
def test_static_mistakes_are_named(tiny, override, message):
    key, value = override.split("=")
    value = {"sise": 3} if key == "kwargs" else value
    with pytest.raises(UserError, match=message):
        prepare(tiny.replace(**{f"data__static__{key}": value}))


def damage(root, kind):
    first = root / "1" / "00009.bin"
    if kind == "truncated":
        first.write_bytes(first.read_bytes()[:-3])
    elif kind == "zero bytes":
        first.write_bytes(b"")
    elif kind == "unknown folder":
        (root / "1").rename(root / "one")
    elif kind == "missing folder":
        shutil.rmtree(root / "1")
    elif kind == "empty folder":
        shutil.rmtree(root / "1")
        (root / "1").mkdir()
    elif kind == "other file":
        first.rename(first.with_suffix(".doc"))
    elif kind == "off the sensor":
        events = ev.read_bin(first)
        events["x"][5] = 40
        ev.write_bin(first, events)
    elif kind == "too few":
        for path in sorted((root / "1").iterdir())[2:]:
            path.unlink()
    elif kind == "no folder":
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", r"1/00009\.bin"),
        ("zero bytes", r"1/00009\.bin.*0 bytes"),
        ("unknown folder", r"/one is none of the classes 0, 1, 2"),
        ("missing folder", r"no folder for the class\(es\) 1 "),
        ("empty folder", r"/1 is empty: a class folder holds"),
        ("other file", r"1/00009\.doc is not a \.bin / .* file; a class folder holds recordings"),
        ("off the sensor", r"1/00009\.bin.*"),
        ("too few", r"class '1' has 2 recordings, 6 are needed"),
        ("no folder", r"events' is not a folder"),
    ],
)
def test_a_damaged_folder_gives_one_error_that_names_it(tiny, recordings, kind, message):
    damage(recordings, kind)
    with pytest.raises(UserError, match=message) as caught:
        prepare(tiny)
    assert "\n" not in str(caught.value)


def test_evaluation_folder_may_hold_some_classes(tiny, recordings):
    shutil.rmtree(recordings / "0")
    frames = load_folder(tiny, ("0", "1", "2"), recordings)
    assert torch.bincount(frames.labels).tolist() == [0, 8, 8]


def test_recordings_alone_need_no_images(tiny_settings, recordings, capsys):
    (recordings / "0").rename(recordings / "cat")
    settings = [s for s in tiny_settings if not s.startswith("data.static")]
    alone = load_config(None, [*settings, "transfer.method=events_only"])
    data = prepare(alone)
    assert data.classes == ("1", "2", "cat")
    assert data.record["static_images"] == data.record["digests"]["static_images"] == []
    score = train(alone)
    assert evaluate_run(alone.out) == score
    assert main(["diagnose", alone.out]) == 2
    assert "has no static images" in capsys.readouterr().err
    assert main(["profile", alone.out, "--batch", "2"]) == 0
    for method in ("bridge", "tmkt", "static_only", "joint", "sliding", "ckd", "finetune"):
        with pytest.raises(UserError, match=r"data\.static\.source: none is given"):
            prepare(load_config(None, [*settings, f"transfer.method={method}"]))
    with pytest.raises(UserError, match=r"data\.static\.source: none is given"):
        prepare(alone.replace(data__events__source="simulated", data__events__test_per_class=2))


def test_images_make_no_difference_to_a_run_that_does_not_look_at_them(tiny_settings, tmp_path):
    settings, weights, splits = [s for s in tiny_settings if not s.startswith("data.static")], [], []
    for out, own in ((tmp_path / "alone", settings), (tmp_path / "paired", tiny_settings)):
        config = load_config(None, [*own, "transfer.method=events_only", f"out={out}"])
        data = prepare(config)
        train(config, data)
        weights.append(load_file(out / "model.safetensors"))
        splits.append([data.record[part] for part in ("train", "validation", "test")])
    assert splits[0] == splits[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
