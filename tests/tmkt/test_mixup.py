"""Time-step mixup: the solver for p, and the distribution of the switch step."""

import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tmkt
from tmkt.mixup import event_step_mask, expected_event_steps, replacement_probability, sample_switch_steps


def law(T: int, p: float) -> list[float]:
    """P(switch = t) for t = 0..T, from the definition of the method."""
    return [p * (1 - p) ** t for t in range(T)] + [(1 - p) ** T]


def test_public_name_is_there_after_importing_the_package_alone():
    assert tmkt.mixup.replacement_probability(4, 1.0) == 1.0
    assert importlib.import_module("tmkt.mixup") is tmkt.mixup


@settings(deadline=None)
@given(T=st.integers(1, 200), ratio=st.floats(0, 1))
def test_solver_gives_the_wanted_share(T, ratio):
    p = replacement_probability(T, ratio)
    assert 0 <= p <= 1
    assert expected_event_steps(T, p) == pytest.approx(ratio * T, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("T", [1, 6, 10])
def test_expected_event_steps_is_the_mean_of_the_law(T, p):
    mean = sum((T - t) * mass for t, mass in enumerate(law(T, p)))
    closed_form = T - (1 - p) * (1 - (1 - p) ** T) / p
    assert expected_event_steps(T, p) == pytest.approx(mean, rel=1e-12)
    assert expected_event_steps(T, p) == pytest.approx(closed_form, rel=1e-10)


def test_one_step_needs_the_ratio_itself():
    assert replacement_probability(1, 0.37) == pytest.approx(0.37, rel=1e-15)


@pytest.mark.parametrize("T", [1, 5, 10])
def test_ratio_0_and_1_are_exact(T):
    assert replacement_probability(T, 0.0) == 0.0
    assert replacement_probability(T, 1.0) == 1.0
    assert sample_switch_steps(100, T, 0.0).tolist() == [T] * 100
    assert sample_switch_steps(100, T, 1.0).tolist() == [0] * 100


@settings(deadline=None, max_examples=30)
@given(T=st.integers(1, 30), low=st.floats(0.001, 0.999), high=st.floats(0.001, 0.999))
def test_p_grows_with_the_ratio(T, low, high):
    low, high = min(low, high), max(low, high)
    assert replacement_probability(T, low) <= replacement_probability(T, high)


@pytest.mark.parametrize(("T", "ratio"), [(1, 0.5), (6, 0.3), (10, 0.5), (10, 0.9)])
def test_switch_steps_follow_the_law(T, ratio):
    """Chi-square at a fixed seed; one seed in 1,000 exceeds the critical value by chance."""
    n = 40_000
    drawn = sample_switch_steps(n, T, ratio, torch.Generator().manual_seed(7))
    observed = torch.bincount(drawn, minlength=T + 1).double()
    expected = torch.tensor(law(T, replacement_probability(T, ratio)), dtype=torch.float64) * n
    keep = expected >= 5
    statistic = float(((observed - expected)[keep] ** 2 / expected[keep]).sum())
    assert observed[~keep].sum() <= 5 + 10 * expected[~keep].sum()
    degrees = int(keep.sum()) - 1
    # Wilson and Hilferty's approximation of the 0.999 quantile.
    critical = degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3
    assert statistic < critical


def test_mean_share_is_the_ratio():
    share = event_step_mask(sample_switch_steps(40_000, 10, 0.3, torch.Generator().manual_seed(1)), 10).mean()
    assert share == pytest.approx(0.3, abs=0.006)  # 4 standard errors


def test_draws_are_int64_reproducible_and_differ_between_samples():
    one, two = (sample_switch_steps(64, 10, 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.dtype == torch.int64
    assert one.shape == (64,)
    assert torch.equal(one, two)
    assert len(one.unique()) > 3
    assert sample_switch_steps(0, 10, 0.5).shape == (0,)


def test_mask_is_a_static_prefix_and_an_event_suffix():
    assert event_step_mask(torch.tensor([0, 2, 3]), 3).T.tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan])
def test_a_ratio_outside_0_to_1_is_an_error(ratio):
    with pytest.raises(ValueError, match=r"ratio: expected a share of event steps in \[0, 1\]"):
        replacement_probability(10, ratio)


def test_bad_counts_are_errors():
    with pytest.raises(ValueError, match="at least 1 time step, got 0"):
        replacement_probability(0, 0.5)
    replacement_probability(2, 0.5)  # its cached result must not serve 2.0
    with pytest.raises(TypeError, match="expected an integer number of time steps, got float"):
        replacement_probability(2.0, 0.5)
    with pytest.raises(TypeError, match="expected an integer number of time steps, got bool"):
        replacement_probability(True, 0.5)
    with pytest.raises(ValueError, match="batch: expected a number of samples >= 0, got -1"):
        sample_switch_steps(-1, 10, 0.5)


def test_each_sample_may_have_its_own_ratio():
    ratios = [0.0, 0.25, 1.0] * 10_000
    drawn = sample_switch_steps(len(ratios), 8, ratios, torch.Generator().manual_seed(0)).view(-1, 3)
    share = 1 - drawn.double().mean(0) / 8
    torch.testing.assert_close(share, torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match="one share for each of 3 samples, got 2"):
        sample_switch_steps(3, 8, [0.1, 0.2])
