"""The assertion helpers fail when they should."""

import pytest
import torch

from tmkt_kernels.testing import assert_gradient_close, assert_spikes_equal


def test_spike_flips():
    spikes = (torch.rand(1000, 100) < 0.3).float()
    assert_spikes_equal(spikes, spikes)
    flipped = spikes.clone()
    flipped[0, 0] = 1 - flipped[0, 0]
    with pytest.raises(AssertionError, match="1 of 100000 spikes flipped, 0 allowed"):
        assert_spikes_equal(flipped, spikes)
    assert_spikes_equal(flipped, spikes, budget=1e-5)
    flipped[1] = 1 - flipped[1]
    with pytest.raises(AssertionError, match="101 of"):
        assert_spikes_equal(flipped, spikes, budget=1e-5)


def test_one_sided_flips():
    spikes = torch.zeros(100_000)
    extra = spikes.clone()
    extra[:50] = 1
    with pytest.raises(AssertionError, match="one-sided"):
        assert_spikes_equal(extra, spikes, budget=1e-2)


def test_unwritten_spikes():
    spikes = torch.zeros(10)
    with pytest.raises(AssertionError, match="never written"):
        assert_spikes_equal(torch.full((10,), torch.nan), spikes)
    with pytest.raises(AssertionError, match="shape"):
        assert_spikes_equal(spikes[:9], spikes)


def test_gradients():
    grad = torch.randn(1000)
    assert_gradient_close(grad * (1 + 1e-6), grad, torch.float32)
    for wrong in (torch.zeros(1000), -grad, grad * 1.001, torch.where(grad > 2, torch.nan, grad)):
        with pytest.raises(AssertionError, match="relative L2"):
            assert_gradient_close(wrong, grad, torch.float32)


def test_one_wrong_element_does_not_drown():
    grad = torch.randn(1_000_000)
    wrong = grad.clone()
    wrong[7] += 0.005
    with pytest.raises(AssertionError, match="largest error"):
        assert_gradient_close(wrong, grad, torch.float32)
