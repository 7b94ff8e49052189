"""A neuron of one's own on the reference path, as CONTRIBUTING.md describes: no file of an operator is touched."""

import torch
from torch import nn

from tmkt_kernels.ops.lif.reference import fire
from tmkt_kernels.surrogate import Surrogate
from tmkt_kernels.testing import assert_gradient_close


class AdaptiveQIF(nn.Module):
    """Quadratic integrate-and-fire with an adaptive threshold, x_seq [T, B, ...] -> spikes of the same shape.

    h[t] = v[t-1] + (a v[t-1] (v[t-1] - v_c) + x[t]) / tau, a spike where h[t] >= 1 + theta[t-1], v[t] = 0 after it;
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
    """Two steps written out, for a neuron that does not fire in the first."""
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
