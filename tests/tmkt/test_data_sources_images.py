"""Static images: every kind of pixel reads as displayed, or its error names the file; no code in a file is run."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from tmkt.config import load_config
from tmkt.data.bundled import ClassMap
from tmkt.data.sources.images import NOT_SETTINGS, StaticSource, open_static, read_image
from tmkt.errors import UserError

RAMP = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
BYTES = ((RAMP.astype(int) + 128) // 257).astype(np.uint8)


def opened(*settings):
    return open_static(load_config(None, [f"data.static.{s}" for s in settings]).data.static)


def saved(tmp_path, name, image):
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    if isinstance(image, bytes):
        (folder / name).write_bytes(image)
    else:
        image.save(folder / name)
    return folder.parent


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("x.png", Image.fromarray(RAMP), BYTES),
        ("x.tif", Image.fromarray(RAMP), BYTES),
        ("x.tif", Image.fromarray(RAMP.astype(">u2")), BYTES),
        ("x.png", Image.fromarray(BYTES), BYTES),
        ("x.png", Image.fromarray(BYTES).convert("RGB"), BYTES),
        ("x.png", Image.fromarray(BYTES).convert("RGBA"), BYTES),
        ("x.png", Image.fromarray(BYTES).convert("LA"), BYTES),
        ("x.png", Image.fromarray(BYTES).convert("P"), BYTES),
        ("x.png", Image.fromarray(BYTES > 100), np.where(BYTES > 100, 255, 0)),
        ("x.webp", Image.new("RGB", (16, 16), (0, 0, 0)), np.zeros((16, 16))),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "mode", ""),
)
@pytest.mark.parametrize("source", ["file", "ImageFolder"])
def test_pixels_read_as_they_look(tmp_path, name, image, expected, source):
    root = saved(tmp_path, name, image)
    read = read_image(root / "a" / name) if source == "file" else opened(f"source={source}", f"root={root}").read(0)
    assert read.dtype == torch.uint8
    assert (read.numpy() == np.asarray(expected)[None]).all()


JPEG = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("x.tif", Image.fromarray(BYTES.astype(np.float32) / 255), "its pixels are floats, whose range"),
        ("x.tif", Image.fromarray(RAMP.astype(np.int32)), "its pixels are 32-bit integers, whose range"),
        ("x.png", b"", "cannot be read"),
        ("x.jpg", b"no image", "cannot be read"),
        ("x.jpg", "cut", "cannot be read"),
        ("x.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0", "cannot be read"),
    ],
)
@pytest.mark.parametrize("source", ["folder", "ImageFolder"])
def test_images_that_cannot_be_read_are_named(tmp_path, name, image, message, source):
    if image == "cut":
        JPEG.save(tmp_path / "whole.jpg")
        image = (tmp_path / "whole.jpg").read_bytes()[:1000]
    if source == "folder" and name.endswith(".tif"):
        path = saved(tmp_path, name, image) / "a" / name
        read = lambda: read_image(path)  # noqa: E731
    else:
        root = saved(tmp_path, name, image)
        source = opened(f"source={source}", f"root={root}")
        read = lambda: source.read(0)  # noqa: E731
    with pytest.raises(UserError, match=rf"image .*/images/a/{name}: .*{message}") as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["VisionDataset", "LSUN", "LSUNClass", "DatasetFolder", "CocoDetection", "__name__"])
def test_sets_that_run_code_or_have_no_labels_are_refused(tmp_path, monkeypatch, source):
    (tmp_path / "_cache_").write_bytes(pickle.dumps(Planted()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "lmdb", types.ModuleType("lmdb"))
    with pytest.raises(UserError, match=f"'{source}' is neither a set of torchvision that has images"):
        opened(f"source={source}", f"root={tmp_path}")
    assert not (tmp_path / "ran").exists()


class Planted:
    def __reduce__(self):
        return open, ("ran", "w")


@pytest.mark.parametrize("key", sorted(NOT_SETTINGS))
def test_keywords_that_are_no_settings_are_refused(tmp_path, key):
    with pytest.raises(UserError, match=f"data.static.kwargs: {key} is not taken"):
        opened("source=MNIST", f"root={tmp_path}", f"kwargs={{{key}: true}}")


@pytest.mark.parametrize("kwargs", ["{split: nowhere}", "{train: 3}", "{}"])
def test_a_set_that_cannot_be_opened_is_named(tmp_path, kwargs):
    source = "STL10" if "split" in kwargs else "CIFAR10"
    with pytest.raises(UserError, match=f"data.static: {source} cannot be opened in '{tmp_path}'"):
        opened(f"source={source}", f"root={tmp_path}", f"kwargs={kwargs}")


IMAGES, LABELS, NAMES = np.zeros((4, 3, 3), np.uint8), np.array([0, 1, 1, 0]), np.array(["a", "b"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": LABELS + 0.7}, "expected one whole number as label for each image, got float64"),
        ({"y": LABELS - 1}, "expected labels from 0 to 1, .* got labels from -1 to 0"),
        ({"y": LABELS + 1}, "expected labels from 0 to 1, .* got labels from 1 to 2"),
        ({"y": LABELS[:, None]}, "expected one whole number as label for each image"),
        ({"y": LABELS[:3]}, "expected uint8 images"),
        ({"c": np.array(["a", "a"])}, "two classes have the same name"),
        ({"x": np.zeros((4, 3, 8, 8), np.uint8)}, r"expected uint8 images .* got uint8 \[4, 3, 8, 8\]"),
        ({"x": np.zeros((4, 3, 3))}, "expected uint8 images .* got float64"),
        ({"x": np.array([None] * 4)}, "source npz needs a file"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "holds no images"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **{"x": IMAGES, "y": LABELS, "c": NAMES, **arrays})
    with pytest.raises(UserError, match=message):
        opened("source=npz", f"root={tmp_path / 'a.npz'}", "kwargs={images: x, labels: y, classes: c}")


def test_damaged_archives_of_images_are_named(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 255, (4, 30, 30), np.uint8), y=LABELS, c=NAMES)
    whole = bytearray(path.read_bytes())
    whole[2000] ^= 255
    for content in (bytes(whole), bytes(whole[:1000]), b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="source npz needs a file"):
            opened("source=npz", f"root={path}", "kwargs={images: x, labels: y, classes: c}")


def test_an_image_left_out_stays_left_out():
    source = StaticSource(np.array([0, -1, 1]), ("a", "b"), lambda i: torch.zeros(1, 1, 1))
    assert source.mapped(ClassMap(("A",), {"a": "A", "b": None}, {})).labels.tolist() == [0, -1, -1]
    assert source.mapped(ClassMap(("A", "B"), {"a": "A", "b": "B"}, {})).labels.tolist() == [0, -1, 1]
