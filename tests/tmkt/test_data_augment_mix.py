"""Mixes of two samples: their cells, and the share of the partner in labels and steps."""

import math

import pytest
import torch

from tmkt.config import AugmentConfig
from tmkt.data import Augmentation, prepare, sample_pairs
from tmkt.data.augment import Mix

T, H, W = 6, 10, 16
B = 600
CPU = torch.device("cpu")


def draw(batch=B, seed=0, **shares):
    return Mix.draw(AugmentConfig(**shares), batch, (T, H, W), torch.Generator().manual_seed(seed))


def masks(**shares):
    mix = draw(**shares)
    assert mix.used.all()
    return mix.blend(CPU).mask


def test_nothing_is_mixed_by_default():
    assert draw() is None


def test_cutmix_is_a_box_of_all_steps_with_a_uniform_area():
    found = masks(cutmix=1.0)
    assert torch.equal(found, found[:, :1].expand_as(found))
    areas = []
    for mask in found[:, 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        for line in (rows, columns):
            places = line.nonzero()[:, 0].tolist()
            assert places == list(range(places[0], places[-1] + 1)) if places else True
        areas.append(float(mask.float().mean()))
    assert min(areas) < 0.02
    assert max(areas) > 0.8
    assert 0.25 < sum(areas) / B < 0.45  # a half, less what the edges cut off and what is rounded down


def test_event_mix_is_the_densest_part_of_a_mixture_of_gaussians():
    mix = draw(event_mix=1.0)
    found, region = mix.blend(CPU).mask, mix.region
    for b in range(40):
        density = torch.zeros(T, H, W, dtype=torch.float64)
        for g in range(4):
            density += region.t[b, g, :, None, None] * region.y[b, g, :, None] * region.x[b, g]
        assert torch.equal(found[b], density > region.threshold[b])
        assert density.max() < 2**53  # exact, so the same on every device
        assert torch.equal(density, density.round())
    gaussians = region.t.any(2).sum(1)
    assert set(gaussians.tolist()) == {2, 3, 4}
    share = found.float().mean((1, 2, 3))
    assert float(share.mean()) == pytest.approx(0.5, abs=0.06)
    assert (share.quantile(0.1) < 0.2) & (share.quantile(0.9) > 0.8)


def test_time_mix_is_the_steps_before_a_uniform_switch():
    found = masks(time_mix=1.0)
    steps = found.sum(1)[:, 0, 0]
    assert torch.equal(found, (torch.arange(T) < steps[:, None])[:, :, None, None].expand_as(found))
    counts = torch.bincount(steps, minlength=T)
    assert counts[0] == 0
    assert (counts[1:] - B / (T - 1)).abs().max() < 40


def test_a_sample_has_one_mix_at_most():
    mix = draw(cutmix=0.2, event_mix=0.3, time_mix=0.25)
    blend = mix.blend(CPU)
    assert int(mix.used.sum()) == len(blend.rows) == pytest.approx(0.75 * B, abs=40)
    assert int(mix.same_class.sum()) == pytest.approx(0.25 * B, abs=40)
    assert not (mix.same_class & ~mix.used).any()
    assert not draw(time_mix=0.5, time_mix_with="any").same_class.any()


def test_sequences_take_the_cells_and_labels_their_share():
    mix = draw(batch=30, cutmix=0.3, event_mix=0.4)
    blend = mix.blend(CPU)
    partners = len(blend.rows)
    own, other = torch.rand(T, 30, 2, H, W), torch.rand(T, partners, 2, H, W)
    label = torch.randint(3, (30 + partners,))
    is_event = (torch.rand(T, 30 + partners) < 0.5).float()
    out, shares = blend.sequences(torch.cat([own, other], 1)), blend.labels(label, 3)
    steps = blend.step_values(is_event)
    number = 0
    for b in range(30):
        expected, classes, events = own[:, b], torch.eye(3)[label[b]], is_event[:, b]
        if mix.used[b]:
            mask = blend.mask[number][:, None].expand(T, 2, H, W)
            cells = is_event[:, b].view(T, 1, 1).expand(T, H, W).clone()
            partner = is_event[:, 30 + number].view(T, 1, 1).expand(T, H, W)
            cells[mask[:, 0]] = partner[mask[:, 0]]
            expected = torch.where(mask, other[:, number], expected)
            share = float(mask.float().mean())
            classes = (1 - share) * classes + share * torch.eye(3)[label[30 + number]]
            events, number = cells.mean((1, 2)), number + 1
        assert torch.equal(out[:, b], expected)
        torch.testing.assert_close(shares[b], classes)
        torch.testing.assert_close(steps[:, b], events)
    assert number == partners > 10
    assert shares.dtype == torch.float32


def test_partners_are_other_pairs_of_the_class_or_of_any(tiny):
    data = prepare(tiny).train

    def pairs(batch=300, **augment):
        augmentation = Augmentation(1, augment=AugmentConfig(**augment))
        return sample_pairs(data, batch, torch.Generator().manual_seed(0), augmentation)

    own, partner = pairs(time_mix=1.0).label.chunk(2)
    assert torch.equal(own, partner)
    drawn = pairs(cutmix=1.0)
    own, partner = drawn.label.chunk(2)
    assert (own != partner).float().mean() == pytest.approx(2 / 3, abs=0.1)
    assert torch.equal(own.bincount(), partner.bincount())
    assert torch.equal(data.events.labels[drawn.event_index], drawn.label)
    offsets = drawn.transform.offset.chunk(2)
    assert not torch.equal(*offsets)
    half = pairs(cutmix=0.5)
    for part in (slice(0, 300), slice(100, 110)):
        share = half.share(part)
        used = half.mix.used[part]
        expected = torch.cat([half.event_index[:300][part], half.event_index[300:][part][used]])
        assert torch.equal(share.event_index, expected)
        assert len(share.label) == len(used) + int(used.sum())


def test_shares_of_the_mask_are_exact():
    blend = draw(batch=50, event_mix=1.0).blend(CPU)
    for share, mask in zip(blend.share.tolist(), blend.mask, strict=True):
        assert share == pytest.approx(int(mask.sum()) / math.prod(mask.shape), abs=1e-7)
