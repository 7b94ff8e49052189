"""NDA and EventDrop: each sample equals a plain reference, and only the steps that are meant change."""

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from tmkt.data.augment import EventDrop, Nda
from tmkt.data.augment.geometry import shear

T, H, W = 6, 24, 36
B = 400


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sequences(batch):
    return torch.rand(T, batch, 2, H, W, generator=generator(1)) + 0.1


def recordings_from(switch, batch):
    return (torch.arange(T)[:, None] >= switch).expand(T, batch)


@pytest.fixture(scope="module")
def nda():
    return Nda.draw("both", B, (H, W), generator())


@pytest.mark.parametrize("angle", [-15.0, 7.5])
@pytest.mark.parametrize("size", [(9, 9), (12, 7)], ids=str)
def test_shear_equals_torchvision_for_every_step(angle, size):
    x_seq = torch.rand(3, 2, 2, *size)
    out = shear(x_seq, torch.tensor([angle, 0.0]))
    torch.testing.assert_close(out[:, 1], x_seq[:, 1], atol=1e-6, rtol=0)
    for t in range(3):
        expected = F.affine(x_seq[t, 0], 0.0, [0, 0], 1.0, [angle, 0.0], interpolation=InterpolationMode.BILINEAR)
        torch.testing.assert_close(out[t, 0], expected, atol=1e-5, rtol=0)


def nda_reference(x, nda, b):
    """One sample [T, C, H, W] by torchvision, and its kind of change."""
    bilinear = {"interpolation": InterpolationMode.BILINEAR}
    x = x.flip(-1) if nda.flip[b] else x
    y0, y1, x0, x1 = nda.hole[b].tolist()
    if nda.angle[b]:
        return "rotate", F.rotate(x, float(nda.angle[b]), **bilinear)
    if nda.lean[b]:
        return "shear", F.affine(x, 0.0, [0, 0], 1.0, [float(nda.lean[b]), 0.0], **bilinear)
    if y1 > y0:
        x = x.clone()
        x[..., y0:y1, x0:x1] = 0
        return "cutout", x
    return "roll", x.roll(nda.offset[b].tolist(), (-2, -1))


def test_nda_is_a_flip_and_one_change_of_each_sample(nda):
    x_seq = sequences(B)
    out = nda.apply(x_seq.clone(), recordings_from(0, B))
    kinds = []
    for b in range(B):
        kind, expected = nda_reference(x_seq[:, b], nda, b)
        kinds.append(kind)
        torch.testing.assert_close(out[:, b], expected, atol=1e-5, rtol=0)
    assert all(abs(kinds.count(kind) - B / 4) < 40 for kind in ("roll", "rotate", "shear", "cutout"))
    assert 160 < int(nda.flip.sum()) < 240


def test_magnitudes_of_nda(nda):
    assert sorted(nda.offset[:, 0].unique().tolist()) == [-2, -1, 0, 1, 2]  # 3 of 48 pixels
    assert sorted(nda.offset[:, 1].unique().tolist()) == [-2, -1, 0, 1, 2]
    for degrees in (nda.angle, nda.lean):
        assert 14 < degrees.abs().max() < 15
        assert degrees.min() < 0 < degrees.max()
    heights, widths = nda.hole[:, 1] - nda.hole[:, 0], nda.hole[:, 3] - nda.hole[:, 2]
    assert (heights.max(), widths.max()) == (4, 6)  # 8 of 48 pixels
    assert (nda.hole[:, 1].max(), nda.hole[:, 3].max()) == (H, W)


@pytest.mark.parametrize("streams", ["events", "images"])
def test_nda_changes_the_steps_of_one_kind_alone(streams):
    nda = Nda.draw(streams, 8, (H, W), generator())
    x_seq, shown = sequences(8), recordings_from(torch.tensor([0, 1, 2, 3, 4, 5, 6, 6]), 8)
    everywhere = nda._replace(streams="both").apply(x_seq.clone(), shown)
    steps = (shown if streams == "events" else ~shown)[..., None, None, None]
    out = nda.apply(x_seq.clone(), shown)
    assert torch.equal(out, torch.where(steps, everywhere, x_seq))
    assert not torch.equal(out, everywhere)


@pytest.fixture(scope="module")
def drop():
    return EventDrop.draw(0.9, B, (T, H, W), generator())


def drop_reference(drop, b):
    """The cells that one sample loses, bool [T, C, H, W], and by which way."""
    t0, t1, y0, y1, x0, x1 = drop.box[b].tolist()
    lost = torch.zeros(T, 2, H, W, dtype=torch.bool)
    lost[t0:t1, :, y0:y1, x0:x1] = True
    if lost.any():
        return lost, "time" if (y1 - y0, x1 - x0) == (H, W) else "area"
    scattered = torch.rand(T, 2, H, W, generator=generator(int(drop.seed[b]))) < drop.lost[b]
    return scattered, "random" if drop.lost[b] > 0 else "none"


def test_event_drop_loses_steps_a_box_or_cells(drop):
    x_seq, kinds = sequences(B), []
    out = drop.apply(x_seq.clone(), recordings_from(0, B))
    for b in range(B):
        lost, kind = drop_reference(drop, b)
        kinds.append(kind)
        assert torch.equal(out[:, b], x_seq[:, b].masked_fill(lost, 0))
    scattered = drop.lost > 0
    assert not drop.box[scattered].any()
    lost = (out == 0).float().mean((0, 2, 3, 4))[scattered]
    torch.testing.assert_close(lost, drop.lost[scattered], atol=0.03, rtol=0)
    assert all(abs(kinds.count(kind) - 0.3 * B) < 40 for kind in ("time", "area", "random"))
    assert abs(kinds.count("none") - 0.1 * B) < 25


def test_ranges_of_event_drop(drop):
    steps, heights, widths = (drop.box[:, 2 * i + 1] - drop.box[:, 2 * i] for i in range(3))
    spans, boxes = (heights == H) & (widths == W), (steps == T)
    assert set(steps[spans].tolist()) == {1, 2, 3, 4, 5}
    assert int(heights[boxes].max()) == 6  # a quarter
    assert int(widths[boxes].max()) == 9
    found = sorted(drop.lost.unique().tolist())
    torch.testing.assert_close(found, [k / 10 for k in range(10)], atol=1e-6, rtol=0)


def test_one_step_is_never_dropped():
    drop = EventDrop.draw(1.0, 100, (1, H, W), generator())
    x_seq = sequences(100)[:1]
    assert (drop.apply(x_seq.clone(), torch.ones(1, 100, dtype=torch.bool)) > 0).flatten(2).any(2).all()


def test_event_drop_leaves_images_alone(drop):
    x_seq = sequences(B)
    out = drop.apply(x_seq.clone(), recordings_from(4, B))
    assert torch.equal(out[:4], x_seq[:4])
    assert torch.equal(out[4:], drop.apply(x_seq.clone(), recordings_from(0, B))[4:])


@pytest.mark.parametrize("policy", ["nda", "drop"])
def test_a_share_of_the_samples_is_augmented_as_in_the_whole(policy, request):
    drawn = request.getfixturevalue(policy)
    x_seq, shown = sequences(B), recordings_from(0, B)
    whole = drawn.apply(x_seq.clone(), shown)
    for rows in (slice(3, 40), torch.tensor([7, 399, 0])):
        torch.testing.assert_close(drawn.share(rows).apply(x_seq[:, rows].clone(), shown[:, rows]), whole[:, rows])
