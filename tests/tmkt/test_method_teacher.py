"""The teacher of ckd learns the run's images, is the same for the same seed, and is trained once per run."""

import pytest
import torch
from safetensors.torch import load_file

from tmkt.data import prepare
from tmkt.method.teacher import teacher_targets, train_teacher
from tmkt.training.trainer import train

TEACHER = {"transfer__method": "ckd", "transfer__teacher__steps": 3, "transfer__teacher__batch": 8}


@pytest.fixture
def ckd(tiny):
    return tiny.replace(**TEACHER)


@pytest.mark.slow
def test_targets_are_made_once_and_read_again(ckd, tmp_path):
    data = prepare(ckd).train
    path = tmp_path / "teacher.safetensors"
    first = teacher_targets(ckd, data, path)
    assert first.logits.shape == (len(data.images), 3)
    assert first.features.shape == (len(data.images), 512)
    written = path.stat().st_mtime_ns
    again = teacher_targets(ckd, data, path)
    assert torch.equal(first.logits, again.logits)
    assert path.stat().st_mtime_ns == written


@pytest.mark.slow
def test_the_same_seed_trains_the_same_teacher(ckd):
    data = prepare(ckd).train
    before = torch.random.get_rng_state()
    one, two = (train_teacher(ckd, data).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), before)
    other = train_teacher(ckd.replace(seed=7), data).state_dict()
    assert not torch.equal(one["1.weight"], other["1.weight"])


@pytest.mark.slow
def test_the_teacher_learns_its_images(ckd, tmp_path):
    config = ckd.replace(data__crop_padding=0, transfer__teacher__steps=40, transfer__teacher__batch=30)
    data = prepare(config).train
    labels = torch.empty(len(data.images), dtype=torch.uint8)
    labels[data.static_by_class.order] = torch.repeat_interleave(torch.arange(3).byte(), data.static_by_class.size)
    data.images = data.images // 4 + 60 * labels.view(-1, 1, 1, 1)  # noise, brighter for higher classes
    targets = teacher_targets(config, data, tmp_path / "teacher.safetensors")
    assert (targets.logits.argmax(1) == labels).float().mean() > 0.8


@pytest.mark.slow
def test_ckd_trains_and_its_test_model_holds_no_teacher(ckd, tmp_path):
    score = train(ckd)
    assert score.total > 0
    assert not any("teacher" in name for name in load_file(tmp_path / "run" / "model.safetensors"))
