"""Each surrogate's derivative against a finite difference of its primitive, and every backend against the formula."""

import math

import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels import surrogate as sg
from tmkt_kernels.testing import SURROGATE_SHAPES, assert_gradient_close

Surrogate = sg.Surrogate


def fourier(u, alpha, beta):
    """Fourier series of the square wave between 0 and 1 that steps up at 0."""
    odd = [2 * i - 1 for i in range(1, int(beta) + 1)]
    return 0.5 + 2 / math.pi * sum(torch.sin(k * 2 * math.pi * alpha * u) / k for k in odd)


def inverse(u, alpha):
    edge = 1 / alpha
    return u.sign() * torch.where(u.abs() < edge, alpha * u.abs(), 1 + torch.log(u.abs().clamp(min=edge) / edge))


# A primitive is defined up to a constant. Those of spike_rate_escape, sparse_fast_sigmoid and tent are not steps.
PRIMITIVES = {
    Surrogate.ATAN: lambda u, alpha: torch.atan(math.pi / 2 * alpha * u) / math.pi + 0.5,
    Surrogate.SIGMOID: lambda u, alpha: torch.sigmoid(alpha * u),
    Surrogate.TRIANGLE: lambda u, alpha: torch.where(
        u < 0, (1 + alpha * u).clamp(min=0).square() / 2, 1 - (1 - alpha * u).clamp(min=0).square() / 2
    ),
    Surrogate.RECTANGLE: lambda u, alpha: (alpha * u + 0.5).clamp(0, 1),
    Surrogate.EXPONENTIAL: lambda u, alpha: torch.where(u < 0, (alpha * u).exp() / 2, 1 - (-alpha * u).exp() / 2),
    Surrogate.SOFT_SIGN: lambda u, alpha: (torch.nn.functional.softsign(alpha * u) + 1) / 2,
    Surrogate.SUPER_SPIKE: lambda u, alpha: alpha * torch.nn.functional.softsign(u),
    Surrogate.FAST_SIGMOID: lambda u, alpha: u / (1 + alpha * u.abs()),
    Surrogate.ERF: lambda u, alpha: torch.erfc(-alpha * u) / 2,
    Surrogate.LOG: lambda u, alpha: u.sign() * torch.log1p(alpha * u.abs()),
    Surrogate.LEAKY_RECTANGLE: lambda u, alpha, beta: (
        alpha * u.clamp(-0.5 / alpha, 0.5 / alpha) + beta * (u - u.clamp(-0.5 / alpha, 0.5 / alpha))
    ),
    Surrogate.FOURIER: fourier,
    Surrogate.S2NN: lambda u, alpha, beta: torch.where(
        u < 0, torch.sigmoid(alpha * u), 0.5 + beta * torch.log1p(u.clamp(min=0))
    ),
    Surrogate.Q_PSEUDO_SPIKE: lambda u, alpha: u.sign() * (1 - (1 + 2 / (alpha - 1) * u.abs()).pow(1 - alpha)) / 2,
    Surrogate.LEAKY_RELU: lambda u, alpha, beta: torch.where(u >= 0, alpha * u, beta * u),
    Surrogate.INVERSE: inverse,
    Surrogate.LOG_TAILED_RELU: lambda u, alpha: torch.where(u <= 0, alpha * u, u.clamp(max=1) + u.clamp(min=1).log()),
    Surrogate.SPIKE_RATE_ESCAPE: lambda u, alpha, beta: (
        alpha / beta * (u - 1).sign() * (1 - torch.exp(-beta * (u - 1).abs()))
    ),
    Surrogate.SPARSE_FAST_SIGMOID: lambda u, alpha, beta: u.clamp(min=beta) / (1 + alpha * u.clamp(min=beta).abs()),
    Surrogate.TENT: lambda u, alpha: -alpha * u.abs(),
    Surrogate.STRAIGHT_THROUGH: lambda u, alpha: alpha * u,
}
each = pytest.mark.parametrize(
    "surrogate, alpha",
    [(surrogate, alpha) for surrogate in Surrogate for alpha in SURROGATE_SHAPES[surrogate]],
    ids=lambda value: value.name.lower() if isinstance(value, Surrogate) else str(value),
)


def test_every_surrogate_has_a_primitive_here():
    assert set(PRIMITIVES) == set(Surrogate)


def pair(alpha):
    return alpha if isinstance(alpha, tuple) else (alpha,)


@each
def test_derivative_is_that_of_the_primitive(surrogate, alpha):
    u = torch.linspace(-3, 3, 6001, dtype=torch.float64) + 1.23e-4  # off the kinks
    step = 1e-6
    primitive = PRIMITIVES[surrogate]
    difference = (primitive(u + step, *pair(alpha)) - primitive(u - step, *pair(alpha))) / (2 * step)
    torch.testing.assert_close(sg.derivative(u, surrogate, *pair(alpha)), difference, rtol=1e-6, atol=1e-7)


@each
def test_native_derivative_over_a_wide_range(surrogate, alpha):
    """One step from rest makes the gradient of x the derivative itself; some inputs would make exp overflow."""
    wide = 20 if surrogate is Surrogate.FOURIER else 200  # the argument of a cosine is rounded
    x = torch.cat([torch.linspace(-wide, wide, 4001), torch.linspace(-1, 3, 4001)])[None].requires_grad_()
    neuron = {"tau": math.inf, "surrogate": surrogate.name.lower(), "alpha": alpha}
    grads = [torch.autograd.grad(tk.lif(x, backend=b, **neuron)[0].sum(), x)[0] for b in ("native", "reference")]
    atol = {
        Surrogate.FOURIER: 1e-5,
        Surrogate.SIGMOID: 1e-30,  # down to values where exp is subnormal
        Surrogate.EXPONENTIAL: 1e-30,
        Surrogate.ERF: 1e-30,
    }.get(surrogate, 1e-6)
    torch.testing.assert_close(*grads, rtol=3e-6, atol=atol)


def test_names():
    assert sg.parse("triangle") is Surrogate.TRIANGLE
    for unknown in ("", "ATan2", None, 3):
        with pytest.raises(ValueError, match="surrogate: expected one of 'atan'"):
            sg.parse(unknown)


@pytest.mark.parametrize(
    ("surrogate", "alpha", "message"),
    [
        ("atan", 0.0, "above 0.0"),
        ("atan", math.inf, "expected a float"),
        ("q_pseudo_spike", 1.0, "above 1.0"),
        ("fourier", (0.25, 1.5), "whole number"),
        ("fourier", 0.25, "expected a pair"),
        ("leaky_relu", (-1.0, 0.0), "of at least 0.0"),
    ],
)
def test_bad_shapes_are_named(surrogate, alpha, message):
    with pytest.raises(ValueError, match=f"alpha: .*{message}"):
        tk.lif(torch.zeros(2, 3), surrogate=surrogate, alpha=alpha)


def test_a_function_of_the_user_is_a_surrogate_of_the_reference():
    x = (torch.randn(5, 3, 40) * 1.5).requires_grad_()
    own = torch.autograd.grad(
        tk.lif(x, surrogate=lambda u, alpha: alpha / (1 + u.abs()).square(), backend="reference")[0].sum(), x
    )[0]
    named = torch.autograd.grad(tk.lif(x, surrogate="super_spike", backend="native")[0].sum(), x)[0]
    assert_gradient_close(named, own, torch.float32)
