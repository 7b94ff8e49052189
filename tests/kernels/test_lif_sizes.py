"""tmkt_kernels.lif at sizes beyond the caches, with thousands of steps and with 2^31 elements."""

import re
from pathlib import Path

import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels.ops.lif.recurrence import Recurrence
from tmkt_kernels.testing import assert_gradient_close, assert_spikes_equal


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(10, 5_000_000), (3, 2_000_003)], ids=["streamed", "odd"])
def test_outputs_beyond_the_caches(shape):
    """Above 2 MB the CPU kernel writes past the caches if rows are aligned."""
    x = torch.randn(shape[0], 1, shape[1] // 2)
    grad = torch.randn_like(x)
    expected = torch.cat([tk.lif(part, backend="native")[0] for part in x.split(100_000, 2)], 2)
    x.requires_grad_()
    spikes, _ = tk.lif(x, backend="native")
    assert torch.equal(spikes, expected)
    parts = zip(x.split(100_000, 2), grad.split(100_000, 2), strict=True)
    expected_grad = [torch.autograd.grad(tk.lif(p, backend="native")[0], p, g)[0] for p, g in parts]
    assert torch.equal(torch.autograd.grad(spikes, x, grad)[0], torch.cat(expected_grad, 2))


def test_thousands_of_steps(target):
    """T = 2,000: backward saves only x, and needs one tile's history besides, whatever N is."""
    backend, device = target
    x = torch.randn(2000, 3, 37, device=device).requires_grad_()
    grad = torch.randn(x.shape, device=device)
    spikes = tk.lif(x, backend=backend)[0]
    expected = tk.lif(x, backend="reference")[0]
    assert_spikes_equal(spikes, expected)
    assert_gradient_close(*(torch.autograd.grad(s, x, grad)[0] for s in (spikes, expected)), torch.float32)


def available_memory() -> int:
    return int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(available_memory() < 12e9, reason="10 GB of memory are needed for 2^31 elements")
def test_more_than_2_31_elements():
    """The last neurons of a tensor beyond 32-bit indices equal the same neurons alone."""
    row = torch.randn(64, 1 << 12).bfloat16()
    x = row.repeat(1, (1 << 13) + 1)
    assert x.numel() > 2**31
    spikes, v_last = tk.lif(x, backend="native")
    expected, expected_last = tk.lif(row, backend="native")
    for start in (0, -(1 << 12)):
        columns = slice(start, start + (1 << 12) or None)
        assert torch.equal(spikes[:, columns], expected)
        assert torch.equal(v_last[columns], expected_last)


def test_fake_tensors_of_more_than_2_31_elements():
    x = torch.empty(8, 1 << 20, 1 << 10, device="meta")
    spikes, v_last, _ = torch.ops.tmkt.lif_fwd(x, None, None, 1, *Recurrence.lif().scalars(), False)
    assert (spikes.shape, v_last.shape) == (x.shape, x.shape[1:])
