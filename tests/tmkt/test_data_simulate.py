"""`tmkt data simulate`: recordings of the images of a folder."""

import numpy as np
import pytest
from PIL import Image

from tmkt.arguments import CAMERAS, FORMATS, MOTIONS
from tmkt.cli import main
from tmkt.data.check import check_folder
from tmkt.data.simulate import WRITERS, simulate_folder
from tmkt.errors import UserError
from tmkt_kernels import events as ev
from tmkt_kernels.ops.camera import motion as camera_motion
from tmkt_kernels.ops.camera import sensor as camera_sensor


@pytest.fixture
def images(tmp_path):
    """Two classes of one and two images, of different sizes."""
    generator = np.random.default_rng(0)
    for name, size in {"cat/a": (20, 30), "cat/b": (16, 16), "dog/c": (40, 24)}.items():
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = generator.integers(0, 256, (size[1] // 4, size[0] // 4), dtype=np.uint8)
        Image.fromarray(blocks).resize(size).save(path)
    return tmp_path / "images"


def read(path):
    with np.load(path) as file:
        return file["events"], tuple(file["sensor_size"].tolist())


def test_each_image_gets_its_recordings(images, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["data", "simulate", str(images), str(out), "--n", "2"]) == 0
    assert "6 recordings of 3 images" in capsys.readouterr().out
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.npz"))
    assert names == [f"{name}-{k}.npz" for name in ("cat/a", "cat/b", "dog/c") for k in (0, 1)]
    (first, size), (second, _) = (read(out / f"cat/a-{k}.npz") for k in (0, 1))
    assert size == (20, 30)
    assert len(first) > 50
    assert not np.array_equal(first, second)
    assert check_folder(out).problems == []


def test_the_seed_decides(images, tmp_path):
    for folder, seed in (("one", 1), ("again", 1), ("other", 2)):
        simulate_folder(images, tmp_path / folder, seed=seed)
    one, again, other = (read(tmp_path / folder / "dog/c-0.npz")[0] for folder in ("one", "again", "other"))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_more_recordings_leave_the_first_as_they_are(images, tmp_path):
    for n in (1, 3):
        simulate_folder(images, tmp_path / str(n), n=n)
    for name in ("cat/a", "cat/b", "dog/c"):
        one, three = (read(tmp_path / str(n) / f"{name}-0.npz")[0] for n in (1, 3))
        assert np.array_equal(one, three)


def test_the_command_takes_every_name():
    assert tuple(camera_sensor.RANGES) == CAMERAS
    assert tuple(camera_motion.MOTIONS) == MOTIONS
    assert tuple(WRITERS) == FORMATS


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("camera", CAMERAS)
def test_every_camera_and_motion(camera, motion, images, tmp_path):
    simulate_folder(images, tmp_path / "out", camera=camera, motion=motion, sensor=(34, 34), format="bin")
    recordings = [ev.read_bin(path) for path in sorted((tmp_path / "out").rglob("*.bin"))]
    assert [len(events) > 100 for events in recordings] == [True] * 3


def test_evt3_states_its_sensor_and_holds_the_same_events(images, tmp_path):
    arguments = ["data", "simulate", str(images), str(tmp_path / "raw"), "--format", "evt3", "--sensor", "300", "260"]
    assert main(arguments) == 0
    simulate_folder(images, tmp_path / "npz", sensor=(300, 260))
    paths = sorted((tmp_path / "raw").rglob("*.raw"))
    assert [path.stem for path in paths] == ["a-0", "b-0", "c-0"]
    for path in paths:
        got = ev.read_raw(path)
        assert got.sensor_size == (300, 260)
        assert np.array_equal(got.events, read(tmp_path / "npz" / path.parent.name / f"{path.stem}.npz")[0])
    assert check_folder(tmp_path / "raw").problems == []
    assert check_folder(tmp_path / "raw", sensor_size=(299, 260)).problems != []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n": 0}, "--n and --seed: expected 1 or more"),
        ({"seed": -1}, "--n and --seed: expected 1 or more and 0 or more, got 1 and -1"),
        ({"sensor": (0, 4)}, r"cat/a.png: sensor_size: expected \(width, height\)"),
        ({"sensor": (300, 300), "format": "bin"}, "cat/a.png: event .* x"),
        ({"sensor": (2049, 4), "format": "evt3"}, "cat/a.png: sensor_size: expected 2048 x 2048 at most"),
    ],
)
def test_wrong_options_are_named(options, message, images, tmp_path):
    with pytest.raises(UserError, match=message):
        simulate_folder(images, tmp_path / "out", **options)


def test_two_images_that_would_be_one_recording_are_named(images, tmp_path):
    Image.open(images / "cat/b.png").save(images / "cat/b.bmp")
    with pytest.raises(UserError, match=r"b\.bmp and .*b\.png: expected one image cat/b; rename one of them"):
        simulate_folder(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_image_without_events_is_named(tmp_path):
    (tmp_path / "images/cat").mkdir(parents=True)
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "images/cat/black.png")
    with pytest.raises(UserError, match=r"black\.png: events: expected at least one event, got none"):
        simulate_folder(tmp_path / "images", tmp_path / "out", camera="nmnist", motion="nmnist")
