"""Each surrogate's derivative against a finite difference of its primitive, a smooth or piecewise step from 0 to 1."""

import math

import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels import surrogate as sg

PRIMITIVES = {
    sg.Surrogate.ATAN: lambda u, alpha: torch.atan(math.pi / 2 * alpha * u) / math.pi + 0.5,
    sg.Surrogate.SIGMOID: lambda u, alpha: torch.sigmoid(alpha * u),
    sg.Surrogate.TRIANGLE: lambda u, alpha: torch.where(
        u < 0, (1 + alpha * u).clamp(min=0).square() / 2, 1 - (1 - alpha * u).clamp(min=0).square() / 2
    ),
    sg.Surrogate.RECTANGLE: lambda u, alpha: (alpha * u + 0.5).clamp(0, 1),
}


def test_every_surrogate_has_a_primitive_here():
    assert set(PRIMITIVES) == set(sg.Surrogate)


@pytest.mark.parametrize("alpha", [0.7, 2.0, 4.0])
@pytest.mark.parametrize("surrogate", sg.Surrogate, ids=lambda s: s.name.lower())
def test_derivative_is_that_of_the_primitive(surrogate, alpha):
    u = torch.linspace(-3, 3, 6001, dtype=torch.float64) + 1.23e-4  # off the kinks
    step = 1e-6
    difference = (PRIMITIVES[surrogate](u + step, alpha) - PRIMITIVES[surrogate](u - step, alpha)) / (2 * step)
    torch.testing.assert_close(sg.derivative(u, surrogate, alpha), difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("surrogate", sg.Surrogate, ids=lambda s: s.name.lower())
def test_native_derivative_over_a_wide_range(surrogate):
    """One step from rest, so that the gradient of x is the derivative itself; also where exp would overflow."""
    x = torch.cat([torch.linspace(-200, 200, 4001), torch.linspace(-1, 3, 4001)])[None].requires_grad_()
    neuron = {"tau": math.inf, "surrogate": surrogate.name.lower(), "alpha": 3.0}
    grads = [torch.autograd.grad(tk.lif(x, backend=b, **neuron)[0].sum(), x)[0] for b in ("native", "reference")]
    torch.testing.assert_close(*grads, rtol=2e-6, atol=1e-30)


def test_names():
    assert sg.parse("triangle") is sg.Surrogate.TRIANGLE
    for unknown in ("", "ATan2", None, 3):
        with pytest.raises(ValueError, match="surrogate: expected one of 'atan'"):
            sg.parse(unknown)
