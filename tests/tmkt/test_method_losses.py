"""Losses against a second, slow implementation of their definitions."""

import pytest
import torch
import torch.nn.functional as F

from tmkt.method import losses


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_cka(x, y):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with centred Gram matrices, in float64, one step at a time."""
    values = []
    for a, b in zip(x.double(), y.double(), strict=True):
        n = len(a)
        h = torch.eye(n, dtype=torch.float64) - 1 / n
        k, m = h @ (a @ a.T) @ h, h @ (b @ b.T) @ h
        values.append((k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt())
    return torch.stack(values)


@pytest.mark.parametrize(("batch", "dx", "dy"), [(8, 40, 40), (40, 8, 5), (2, 3, 3), (10, 5, 30)])
def test_cka_equals_the_gram_form(batch, dx, dy):
    x, y = rand(3, batch, dx) + 2, rand(3, batch, dy, seed=1) * 5
    torch.testing.assert_close(losses.linear_cka(x, y).double(), naive_cka(x, y), rtol=1e-5, atol=1e-6)


def test_cka_ignores_rotation_scale_and_offset_and_is_1_for_equal_features():
    x, y = rand(2, 16, 6), rand(2, 16, 6, seed=1)
    rotation = torch.linalg.qr(rand(6, 6, seed=2)).Q
    torch.testing.assert_close(losses.linear_cka(3 * x @ rotation + 7, y), losses.linear_cka(x, y))
    torch.testing.assert_close(losses.linear_cka(x, x), torch.ones(2))
    assert (losses.linear_cka(x, y) < 0.9).all()


def test_cka_takes_large_small_and_constant_features():
    x, y = rand(2, 8, 100), rand(2, 8, 100, seed=1)
    torch.testing.assert_close(losses.linear_cka(1e6 * x, 1e-6 * y), losses.linear_cka(x, y), rtol=1e-4, atol=0)
    constant = torch.ones(2, 8, 100, requires_grad=True)
    value = losses.linear_cka(constant, y)
    value.sum().backward()
    assert value.tolist() == [0, 0]
    assert torch.isfinite(constant.grad).all()


def test_cka_stays_in_float32_under_autocast():
    x, y = rand(2, 8, 50), rand(2, 8, 50, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = losses.linear_cka(x, y)
    assert torch.equal(inside, losses.linear_cka(x, y))


def test_cka_gradient():
    x = rand(1, 4, 3).double().requires_grad_()
    y = rand(1, 4, 3, seed=1)
    losses.linear_cka(x, y).sum().backward()
    reference = x.detach().clone().requires_grad_()
    naive_cka(reference, y).sum().backward()
    torch.testing.assert_close(x.grad, reference.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shapes", [((2, 8, 3), (3, 8, 3)), ((2, 8, 3), (2, 7, 3)), ((8, 3), (8, 3))])
def test_cka_refuses_shapes_that_do_not_match(shapes):
    with pytest.raises(ValueError, match="expected \\[T, B, D\\] with equal T and B"):
        losses.linear_cka(*(rand(*shape) for shape in shapes))


def test_cka_refuses_a_batch_of_one():
    with pytest.raises(ValueError, match="expected B >= 2, got 1"):
        losses.linear_cka(rand(2, 1, 3), rand(2, 1, 3))


def test_domain_alignment_is_the_mean_over_steps_and_0_for_equal_streams():
    x, y = rand(3, 8, 5), rand(3, 8, 5, seed=1)
    torch.testing.assert_close(losses.domain_alignment(x, y).double(), (1 - naive_cka(x, y)).mean())
    assert losses.domain_alignment(x, x).abs() < 1e-6


def test_tet_is_a_mean_over_steps_not_of_the_mean_logits():
    logits, label = rand(4, 6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    per_step = sum(F.cross_entropy(z, label) for z in logits) / 4
    mse = sum(((z - 0.5) ** 2).mean() for z in logits) / 4
    torch.testing.assert_close(losses.tet(logits, label, theta=0.5, weight=0.2), 0.8 * per_step + 0.2 * mse)
    mean = losses.mean_cross_entropy(logits, label)
    torch.testing.assert_close(mean, F.cross_entropy(sum(logits) / 4, label))
    assert losses.tet(logits, label, theta=0.5, weight=0.0) > mean  # by convexity, strictly for unequal steps


def test_modality_guidance_against_the_formula():
    logits, is_event = rand(3, 4), torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0]])
    p = torch.sigmoid(logits)
    expected = -(is_event * p.log() + (1 - is_event) * (1 - p).log()).mean()
    torch.testing.assert_close(losses.modality_guidance(logits, is_event), expected)


def test_ratio_perception_against_the_formulas():
    logits, ratio = rand(5), torch.tensor([0.0, 0.3, 0.5, 0.9, 1.0])
    p = torch.sigmoid(logits)
    torch.testing.assert_close(losses.ratio_perception(logits, ratio), ((p - ratio) ** 2).mean())
    soft = -(ratio * p.log() + (1 - ratio) * (1 - p).log()).mean()
    torch.testing.assert_close(losses.ratio_perception(logits, ratio, "bce"), soft)
    with pytest.raises(ValueError, match="expected 'mse' or 'bce', got 'l1'"):
        losses.ratio_perception(logits, ratio, "l1")


def test_distillation_is_the_divergence_from_the_teacher():
    student, teacher = torch.randn(4, 5, 3), torch.randn(5, 3)
    p, q = (teacher / 2).softmax(1), (student.mean(0) / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(losses.distillation(student, teacher, 2.0), expected)
    assert losses.distillation(teacher.expand(4, -1, -1), teacher, 2.0).abs() < 1e-6


def test_step_weights_of_tet_and_alignment():
    logits, label = torch.randn(4, 5, 3), torch.arange(5) % 3
    x, y, w = torch.randn(4, 5, 7), torch.randn(4, 5, 7), torch.rand(4)
    steps = torch.stack([losses.tet(logits[t : t + 1], label, theta=0.5) for t in range(4)])
    torch.testing.assert_close(losses.tet(logits, label, theta=0.5, step_weight=w), (w * steps).mean())
    steps = torch.stack([losses.domain_alignment(x[t : t + 1], y[t : t + 1]) for t in range(4)])
    torch.testing.assert_close(losses.domain_alignment(x, y, w), (w * steps).mean())
