"""Augmentations: the same for all steps of a sample, seeded, and equal to torchvision's where it has them."""

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from tmkt.data import prepare, sample_pairs
from tmkt.data.augment import Augmentation, Transform, rotate


def transform(**changes):
    none = {"offset": torch.zeros(2, 2).long(), "flip": torch.zeros(2).bool(), "angle": torch.zeros(2)}
    return Transform(**{**none, **changes})


def test_nothing_drawn_changes_nothing():
    x_seq = torch.rand(3, 2, 2, 6, 5)
    assert transform().apply(x_seq) is x_seq


def test_flip_mirrors_the_chosen_samples_in_all_steps():
    x_seq = torch.rand(3, 2, 2, 6, 5)
    out = transform(flip=torch.tensor([False, True])).apply(x_seq)
    assert torch.equal(out[:, 0], x_seq[:, 0])
    assert torch.equal(out[:, 1], x_seq[:, 1].flip(-1))


@pytest.mark.parametrize("angle", [-15.0, 7.5, 90.0])
@pytest.mark.parametrize("size", [(9, 9), (12, 7)], ids=str)
def test_rotation_equals_torchvision_for_every_step(angle, size):
    x_seq = torch.rand(3, 2, 2, *size)
    out = rotate(x_seq, torch.tensor([angle, 0.0]))
    assert torch.allclose(out[:, 1], x_seq[:, 1], atol=1e-6)
    for t in range(3):
        expected = F.rotate(x_seq[t, 0], angle, interpolation=InterpolationMode.BILINEAR)
        assert torch.allclose(out[t, 0], expected, atol=1e-5)


def test_draws_are_seeded_in_range_and_leave_the_pairs_as_they_were(tiny):
    data = prepare(tiny).train

    def draw(*augmentation):
        return sample_pairs(data, 200, torch.Generator().manual_seed(3), Augmentation(*augmentation))

    plain, pairs, again = draw(1), draw(1, True, 15.0), draw(1, True, 15.0)
    assert all(torch.equal(a, b) for a, b in zip(pairs.transform, again.transform, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain[:3], pairs[:3], strict=True))
    assert torch.equal(plain.transform.offset, pairs.transform.offset)
    assert not plain.transform.flip.any()
    assert not plain.transform.angle.any()
    drawn = pairs.transform
    assert 60 < int(drawn.flip.sum()) < 140
    assert 10 < float(drawn.angle.abs().max()) <= 15
    assert drawn.angle.min() < 0 < drawn.angle.max()
