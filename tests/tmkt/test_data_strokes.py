"""Simulated twins: pen strokes, drifting images, and pairs of a recording with its own image."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tmkt.config import load_config
from tmkt.data import prepare, sample_pairs
from tmkt.data.strokes import read_strokes, render_strokes, simulate_strokes
from tmkt.errors import UserError
from tmkt.training.trainer import train

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = ["train.steps=2", "train.batch=4", "train.warmup=1", "train.device=cpu", "data.time_steps=3"]


@pytest.fixture
def drawing(tmp_path):
    """A stroke to the right, a pause, a stroke down, a dot."""
    path = tmp_path / "a.txt"
    path.write_text("START\n20,-30,0\n80,-30,400\nBREAK\n50,-30,1000\n50,-90,1500\nBREAK\n90,-90,2000\nBREAK\n")
    return path


def test_strokes_come_in_their_order(drawing):
    strokes = read_strokes(drawing)
    assert [len(s) for s in strokes] == [2, 2, 1]
    assert strokes[1].tolist() == [[50, 30, 1000], [50, 90, 1500]]
    video = render_strokes(strokes, (80, 60), frames=21)
    assert video.shape == (21, 60, 80)
    assert (video[0] == 255).all()
    assert (np.diff(video.astype(int), axis=0) <= 0).all()  # ink remains
    changed = [bool((a != b).any()) for a, b in zip(video[1:], video[:-1], strict=True)]
    assert [k + 1 for k, c in enumerate(changed) if c] == [4, 15, 20]  # 400, 1500 and 2000 of 2000 ms
    row, column = round(30 / 105 * 60), 10 + round(50 / 105 * 60)
    assert video[-1][row, 10 + round(30 / 105 * 60)] < 50
    assert video[-1][round(60 / 105 * 60), column] < 50


def test_recording_of_a_drawing_darkens_where_the_pen_goes(drawing):
    events = simulate_strokes(drawing, sensor_size=(42, 42), seed=1)
    assert np.array_equal(events, simulate_strokes(drawing, sensor_size=(42, 42), seed=1))
    off = events[~events["p"]]
    late = off[off["t"] > 400_000]
    assert len(late) > 0.3 * len(off) > 50
    assert events["t"][-1] < 1_000_000
    ink = render_strokes(read_strokes(drawing), (42, 42))[-1] < 200
    assert ink[off["y"], off["x"]].mean() > 0.9


@pytest.mark.parametrize(
    ("text", "message"), [("START\n1,2\n", "line 2: expected x,y,t, got '1,2'"), ("START\nBREAK\n", "holds no stroke")]
)
def test_damaged_strokes_are_named(tmp_path, text, message):
    (tmp_path / "b.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_strokes(tmp_path / "b.txt")


def test_finished_drawings_resemble_the_images_of_omniglot(shared_data, tmp_path):
    folder = shared_data / "omniglot"
    with (
        zipfile.ZipFile(folder / "strokes_background_small1.zip") as strokes,
        zipfile.ZipFile(folder / "images_background_small1.zip") as images,
    ):
        names = sorted(n for n in images.namelist() if n.endswith(".png"))[::300]
        alike = []
        for name in names:
            image = Image.open(io.BytesIO(images.read(name))).convert("L")
            path = strokes.extract(name.replace("images_", "strokes_").replace(".png", ".txt"), tmp_path)
            drawn = render_strokes(read_strokes(path), (105, 105), frames=2)[-1]
            alike.append(np.corrcoef(drawn.ravel(), np.asarray(image).ravel())[0, 1])
    assert len(alike) > 5
    assert np.mean(alike) > 0.85


def test_training_starts_on_strokes_paired_with_their_images(tmp_path, monkeypatch):
    monkeypatch.setenv("TMKT_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    for character in ("character01", "character02"):
        for k in range(1, 9):
            for kind, suffix in (("images", "png"), ("strokes", "txt")):
                path = tmp_path / f"omniglot/{kind}_background/A/{character}/0001_{k:02d}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "images":
                    Image.new("L", (105, 105)).save(path)
                else:
                    points = [f"{x},{-y},{20 * i}" for i, (x, y) in enumerate(rng.integers(10, 95, (6, 2)))]
                    path.write_text("\n".join(["START", *points, "BREAK"]))
    settings = [
        *TINY,
        f"out={tmp_path / 'run'}",
        f"data.cache={tmp_path / 'cache'}",
        "model.options={channels: [4, 8]}",
    ]
    config = load_config(CONFIGS / "omniglot_strokes.yaml", [*settings, "data.pairing=twin"])
    data = prepare(config)
    assert (len(data.train.events), len(data.test)) == (12, 4)
    assert train(config, data).total == 4


def test_training_starts_on_cifar10_that_drifts(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    arrays = {"train_images": images, "train_labels": np.arange(40) % 10, "class_names": np.array(list("abcdefghij"))}
    np.savez(tmp_path / "cifar10_small.npz", **arrays)
    counts = [f"data.events.{part}_per_class=1" for part in ("train", "validation", "test")]
    npz = {"source": "npz", "root": tmp_path / "cifar10_small.npz", "per_class": "null"}
    npz["kwargs"] = "{images: train_images, labels: train_labels, classes: class_names}"
    images_of = [f"data.static.{key}={value}" for key, value in npz.items()]
    settings = [*TINY, *counts, *images_of, f"out={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}"]
    config = load_config(CONFIGS / "cifar10_simulated.yaml", [*settings, "model.options={channels: [4, 8]}"])
    data = prepare(config)
    assert data.classes == tuple("abcdefghij")
    assert len(data.record["static_images"]) == 10  # 30 are sources of the simulation
    assert train(config, data).total == 10


def test_simulated_twins_are_the_images_simulated_from():
    settings = ["data.static.source=sklearn_digits", "data.events.source=simulated", "data.pairing=twin"]
    counts = [f"data.events.{part}_per_class=2" for part in ("train", "validation", "test")]
    data = prepare(load_config(None, [*settings, *counts, "data.time_steps=2"]))
    pairs = sample_pairs(data.train, 20, torch.Generator().manual_seed(0))
    for static, event in zip(pairs.static_index, pairs.event_index, strict=True):
        assert data.train.events.names[event].endswith(f"/{data.record['static_images'][static]}")


def test_inverted_images_swap_the_polarities():
    settings = ["data.static.source=sklearn_digits", "data.events.source=simulated", "data.time_steps=6"]
    counts = [f"data.events.{part}_per_class=1" for part in ("train", "validation", "test")]
    plain, negative = (
        prepare(load_config(None, [*settings, *counts, f"data.events.invert={v}"])) for v in (False, True)
    )
    signed = [(d.test.frames[:, :, 1] - d.test.frames[:, :, 0]).flatten().float() for d in (plain, negative)]
    assert torch.corrcoef(torch.stack(signed))[0, 1] < -0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["root=none.npz"], "source npz needs a file"),
        (["root=a.npz", "kwargs={images: x}"], "source npz needs a file"),
        (["root=a.npz", "kwargs={images: x, labels: y, classes: y}"], "expected uint8 images"),
    ],
)
def test_mistakes_about_npz_images_are_named(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=np.zeros((2, 3, 3)), y=np.zeros(2, int))
    with pytest.raises(UserError, match=message):
        prepare(load_config(None, ["data.static.source=npz", *[f"data.static.{s}" for s in settings]]))
