"""Cameras and motions by name, and how close those of N-Caltech101 come to its one recording at hand."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image

from tmkt_kernels import Camera, Motion, simulate_frames
from tmkt_kernels import events as ev
from tmkt_kernels.ops.camera.motion import MOTIONS
from tmkt_kernels.ops.camera.sensor import RANGES


def equal(some, other):
    return all(torch.equal(getattr(some, field.name), getattr(other, field.name)) for field in fields(some))


@pytest.mark.parametrize("kind, names", [(Camera.draw, RANGES), (Motion.preset, MOTIONS)])
def test_the_generator_decides(kind, names):
    for name in names:
        one, again = (kind(3, name, generator=torch.Generator().manual_seed(0)) for _ in range(2))
        other = kind(3, name, generator=torch.Generator().manual_seed(1))
        assert len(one) == 3
        assert equal(one, again)
        random = name in ("any", "handheld") or (names is RANGES and name == "ncaltech101")
        assert equal(one, other) is not random


def test_a_name_stands_for_these_values():
    assert equal(Camera.draw(2, "nmnist"), Camera.of(ev.SensorModel(), 2))
    assert equal(Motion.preset(2, "nmnist"), Motion.saccades(2))
    assert equal(Motion.preset(2, "cifar10dvs"), Motion.drift(2))
    camera, motion = Camera.draw(100, "ncaltech101"), Motion.preset(100, "ncaltech101")
    for name, value in {"dark": 0.26, "threshold": 0.12, "threshold_off": 0.107, "refractory_us": 2_100}.items():
        assert (getattr(camera, name) == value).all()  # exactly, although a range is drawn by its logarithm
    assert camera.noise_on_share.unique().tolist() == [ev.SensorModel.noise_on_share]
    assert camera.latency_us.min() >= 0
    assert camera.latency_us.max() <= 1_000
    assert camera.latency_us.unique().numel() == 100
    assert (motion.duration_us() == 300_000).all()
    assert (motion.fill == 1.047).all()


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match=r"ranges: expected one of any, nmnist, ncaltech101, or .* got 'caltech'"):
        Camera.draw(1, "caltech")
    with pytest.raises(ValueError, match=r"name: expected one of any, nmnist, .*, handheld; got 'saccades'"):
        Motion.preset(1, "saccades")
    with pytest.raises(ValueError, match="batch: expected"):
        Motion.preset(-1, "nmnist")


@pytest.fixture(scope="module")
def face(shared_data):
    """A real recording of N-Caltech101 in 30 frames of 38x44 blocks, and the image [1, 1, H, W] that it shows."""
    recording = shared_data / "formats/ncaltech101_faces_easy_0001.bin"
    if not recording.is_file():
        pytest.skip(f"no {recording.name} in the shared data")
    frames = ev.to_frames(ev.read_bin(recording), 30, (152, 174), (38, 44), span=(0, 300_000))
    image = Image.open(shared_data / "caltech101/Faces_easy/image_0001.jpg").convert("L")
    return torch.tensor(frames).double(), torch.tensor(np.asarray(image))[None, None]


def simulated(image, motion):
    camera = Camera.draw(len(motion), "ncaltech101", generator=torch.Generator().manual_seed(0))
    index, seeds = torch.zeros(len(motion), dtype=torch.int64), torch.arange(len(motion))
    size = {"sensor_size": (152, 174), "size": (38, 44)}
    return simulate_frames(image, index, motion, camera, 30, seed=seeds, **size).transpose(0, 1).double()


def test_a_simulated_face_resembles_the_real_recording(face):
    real, image = face
    frames = simulated(image, Motion.preset(16, "ncaltech101"))
    mean = frames.mean(0)
    assert mean.sum().item() == pytest.approx(real.sum().item(), rel=0.03)
    assert mean.sum((0, 2, 3)).tolist() == pytest.approx(real.sum((0, 2, 3)).tolist(), rel=0.04)  # off and on
    by_saccade = [counts.reshape(3, -1).sum(1).tolist() for counts in (mean, real)]
    assert by_saccade[0] == pytest.approx(by_saccade[1], rel=0.04)
    assert [np.corrcoef(one.ravel(), real.ravel())[0, 1] for one in frames.numpy()] == pytest.approx(
        [0.742] * 16, abs=0.02
    )


@pytest.mark.parametrize("wrong, most", [("path", 0.2), ("fill", 0.55)])
def test_a_wrong_motion_resembles_it_less(wrong, most, face):
    real, image = face
    motion = Motion.preset(2, "ncaltech101")
    values = {"path": -motion.path, "fill": torch.ones_like(motion.fill)}
    for frames in simulated(image, replace(motion, **{wrong: values[wrong]})):
        assert np.corrcoef(frames.ravel(), real.ravel())[0, 1] < most
