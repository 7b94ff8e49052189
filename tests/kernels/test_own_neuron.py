"""Users' own neurons, as CONTRIBUTING.md describes, with no change to an operator's files."""

import pytest
import torch
from torch import nn

from tmkt_kernels.ops.lif.reference import fire
from tmkt_kernels.surrogate import Surrogate
from tmkt_kernels.testing import assert_gradient_close, relative_error


class AdaptiveQIF(nn.Module):
    """Quadratic integrate-and-fire with an adaptive threshold, x_seq [T, B, ...] -> spikes of the same shape.

    h[t] = v[t-1] + (a v[t-1] (v[t-1] - v_c) + x[t]) / tau, a spike where h[t] >= 1 + theta[t-1], then v[t] = 0;
    theta[t] = decay theta[t-1] + jump s[t].
    """

    def __init__(
        self, tau: float = 2.0, a: float = 1.0, v_c: float = 0.5, decay: float = 0.9, jump: float = 0.2
    ) -> None:
        super().__init__()
        self.tau, self.a, self.v_c, self.decay, self.jump = tau, a, v_c, decay, jump

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        v = theta = torch.zeros_like(x_seq[0])
        spikes = []
        for x in x_seq:
            h = v + (self.a * v * (v - self.v_c) + x) / self.tau
            s = fire(h - 1 - theta, Surrogate.ATAN, 2.0)
            v = h * (1 - s.detach())
            theta = self.decay * theta + self.jump * s.detach()
            spikes.append(s)
        return torch.stack(spikes)


def test_it_spikes_less_as_its_threshold_rises():
    x = torch.full((40, 2, 3), 3.0)
    spikes = AdaptiveQIF()(x)
    assert spikes.unique().tolist() == [0.0, 1.0]
    assert spikes[:10].mean() > spikes[-10:].mean()


def test_its_gradient_is_the_chain_rule_over_the_surrogate():
    """Two steps by hand, for a neuron that does not fire in the first."""
    x = torch.tensor([0.8, 0.7]).view(2, 1, 1).requires_grad_()
    neuron = AdaptiveQIF()
    spikes = neuron(x)
    assert not spikes[0].any()
    (grad,) = torch.autograd.grad(spikes[1].sum(), x)
    h0 = 0.8 / 2
    h1 = h0 + (h0 * (h0 - 0.5) + 0.7) / 2
    ds = 1 / (1 + (torch.pi * (h1 - 1)) ** 2)
    expected = torch.tensor([ds * (1 + (2 * h0 - 0.5) / 2) / 2, ds / 2]).view_as(x)
    assert_gradient_close(grad, expected, torch.float32)


@pytest.mark.parametrize("T", [1, 7, 40])
@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "batch-norm"])
def test_a_neuron_of_ones_own_runs_in_the_scan(normalised, T):
    """own_neuron_triton.py against the same neuron in plain PyTorch, in Triton's interpreter if there is no GPU."""
    pytest.importorskip("triton")
    from own_neuron_triton import QIF, Parameters

    from tmkt_kernels.ops.scan_launch_triton import Layout, scan_backward, scan_forward
    from tmkt_kernels.ops.scan_values import Gradients, Norm, Outputs, Results

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, grad = torch.randn(2, T, 3, 37, device=device)
    x = (1.5 * x).requires_grad_()
    mean, scale, bias = torch.rand(3, 37, device=device) + 0.5
    current = (x - mean) * scale + bias if normalised else x
    expected = AdaptiveQIF(jump=0.0)(current)
    norm = Norm(mean, scale, bias) if normalised else None
    spikes, v_last, grad_x = torch.empty_like(x), torch.empty_like(x[0]), torch.empty_like(x)
    neuron, layout = (QIF, Parameters()), Layout(channels=37)
    scan_forward(x, None, norm, neuron, layout, Outputs(spikes, v_last, None))
    scan_backward(Gradients(grad, None, None), x, None, norm, neuron, layout, Results(grad_x, None, None, None))
    assert 0 < expected.mean() < 1
    assert torch.equal(spikes, expected)
    assert relative_error(grad_x, torch.autograd.grad(expected, x, grad)[0]) < 1e-5
