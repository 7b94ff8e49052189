"""Surrogate gradients: replacements in backward for the derivative of the Heaviside step.

Each surrogate is defined by its derivative with respect to u = h - v_threshold, with one shape parameter, alpha, or
two, alpha and beta. The same formulas are in csrc/common/surrogate.h (C++ and CUDA) and in
tmkt_kernels/ops/surrogate_triton.py. docs/surrogates.md lists the equivalents in SpikingJelly and snnTorch.
"""

import math
from collections.abc import Callable
from enum import IntEnum

import torch
from torch import Tensor


class Surrogate(IntEnum):
    """The surrogates of every backend. C++ and Triton share the numbers."""

    ATAN = 0
    SIGMOID = 1
    TRIANGLE = 2
    RECTANGLE = 3
    EXPONENTIAL = 4
    SOFT_SIGN = 5
    SUPER_SPIKE = 6
    FAST_SIGMOID = 7
    ERF = 8
    LOG = 9
    LEAKY_RECTANGLE = 10
    FOURIER = 11
    S2NN = 12
    Q_PSEUDO_SPIKE = 13
    LEAKY_RELU = 14
    INVERSE = 15
    LOG_TAILED_RELU = 16
    SPIKE_RATE_ESCAPE = 17
    SPARSE_FAST_SIGMOID = 18
    TENT = 19
    STRAIGHT_THROUGH = 20


def _atan(u: Tensor, alpha: float) -> Tensor:
    """alpha / 2 / (1 + (pi/2 alpha u)^2); Fang et al., ICCV 2021, arXiv 2007.05785."""
    z = (math.pi / 2 * alpha) * u
    return (alpha / 2) / (1 + z * z)


def _sigmoid(u: Tensor, alpha: float) -> Tensor:
    """alpha s (1 - s) with s = sigmoid(alpha u), written so that exp never overflows."""
    e = torch.exp(-(alpha * u).abs())
    return alpha * e / ((1 + e) * (1 + e))


def _triangle(u: Tensor, alpha: float) -> Tensor:
    """max(0, alpha - alpha^2 |u|), the quadratic gate; Wu et al., 2018, arXiv 1706.02609."""
    return (alpha - alpha * alpha * u.abs()).clamp(min=0)


def _rectangle(u: Tensor, alpha: float) -> Tensor:
    """alpha where |u| < 1 / (2 alpha), else 0; Wu et al., 2018, arXiv 1706.02609."""
    return alpha * (u.abs() < 0.5 / alpha).to(u.dtype)


def _exponential(u: Tensor, alpha: float) -> Tensor:
    """alpha / 2 exp(-alpha |u|), the piecewise exponential; Neftci et al., 2019, arXiv 1901.09948."""
    return alpha / 2 * torch.exp(-(alpha * u).abs())


def _soft_sign(u: Tensor, alpha: float) -> Tensor:
    """alpha / 2 / (1 + alpha |u|)^2, of alpha u / (1 + alpha |u|); SpikingJelly's SoftSign."""
    return (alpha / 2) / (1 + alpha * u.abs()).square()


def _super_spike(u: Tensor, alpha: float) -> Tensor:
    """alpha / (1 + |u|)^2; Zenke and Ganguli, 2018, arXiv 1705.11146, with alpha as a factor."""
    return alpha / (1 + u.abs()).square()


def _fast_sigmoid(u: Tensor, alpha: float) -> Tensor:
    """1 / (1 + alpha |u|)^2, of u / (1 + alpha |u|); Zenke and Ganguli, 2018, arXiv 1705.11146."""
    return 1 / (1 + alpha * u.abs()).square()


def _erf(u: Tensor, alpha: float) -> Tensor:
    """alpha / sqrt(pi) exp(-(alpha u)^2), the Gaussian; Yin et al., 2020, arXiv 2005.11633."""
    return alpha / math.sqrt(math.pi) * torch.exp(-(alpha * u).square())


def _log(u: Tensor, alpha: float) -> Tensor:
    """alpha / (1 + alpha |u|), of sign(u) log(1 + alpha |u|); SpikingJelly's NonzeroSignLogAbs."""
    return alpha / (1 + alpha * u.abs())


def _leaky_rectangle(u: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha where |u| < 1 / (2 alpha), else beta; Wu et al., 2018, arXiv 1706.02609, with a leak."""
    return torch.where(u.abs() < 0.5 / alpha, alpha, beta).to(u.dtype)


def _fourier(u: Tensor, alpha: float, beta: float) -> Tensor:
    """4 alpha times the sum over i = 1 .. beta of cos((2 i - 1) 2 pi alpha u): the Fourier series of a square wave
    of frequency alpha, up to its term number beta; SpikingJelly's SquarewaveFourierSeries."""
    theta = (2 * math.pi * alpha) * u
    terms = [torch.cos((2 * i - 1) * theta) for i in range(1, int(beta) + 1)]
    return 4 * alpha * torch.stack(terms).sum(0)


def _s2nn(u: Tensor, alpha: float, beta: float) -> Tensor:
    """Below the threshold like sigmoid, from it on beta / (1 + u); Suetake et al., 2022, arXiv 2201.10879."""
    return torch.where(u < 0, _sigmoid(u, alpha), beta / (1 + u.clamp(min=0)))


def _q_pseudo_spike(u: Tensor, alpha: float) -> Tensor:
    """(1 + 2 |u| / (alpha - 1))^-alpha, alpha > 1; Herranz-Celotti and Rouat, 2022, arXiv 2202.00282."""
    return (1 + 2 / (alpha - 1) * u.abs()).pow(-alpha)


def _leaky_relu(u: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha from the threshold on, beta below; with beta = 0 the step itself."""
    return torch.where(u >= 0, alpha, beta).to(u.dtype)


def _inverse(u: Tensor, alpha: float) -> Tensor:
    """min(1 / |u|, alpha); SpikingJelly's FakeNumericalGradient."""
    return (1 / u.abs()).clamp(max=alpha)


def _log_tailed_relu(u: Tensor, alpha: float) -> Tensor:
    """alpha for u <= 0, 1 up to u = 1, 1 / u beyond; Cai et al., 2017, arXiv 1702.00953."""
    return torch.where(u <= 0, alpha, 1 / u.clamp(min=1))


def _spike_rate_escape(u: Tensor, alpha: float, beta: float) -> Tensor:
    """alpha exp(-beta |u - 1|); snnTorch's spike_rate_escape, after Gerstner and Kistler, 2002."""
    return alpha * torch.exp(-(beta * (u - 1)).abs())


def _sparse_fast_sigmoid(u: Tensor, alpha: float, beta: float) -> Tensor:
    """Like fast_sigmoid where u > beta, else 0; Perez-Nieves and Goodman, 2021, arXiv 2105.08810."""
    return _fast_sigmoid(u, alpha) * (u > beta).to(u.dtype)


def _tent(u: Tensor, alpha: float) -> Tensor:
    """alpha below the threshold, -alpha from it on; snnTorch's triangular."""
    return torch.where(u >= 0, -alpha, alpha).to(u.dtype)


def _straight_through(u: Tensor, alpha: float) -> Tensor:
    """alpha everywhere, 1 in the straight-through estimator; Bengio et al., 2013, arXiv 1308.3432."""
    return torch.full_like(u, alpha)


ONE_PARAMETER: dict[Surrogate, Callable[[Tensor, float], Tensor]] = {
    Surrogate.ATAN: _atan,
    Surrogate.SIGMOID: _sigmoid,
    Surrogate.TRIANGLE: _triangle,
    Surrogate.RECTANGLE: _rectangle,
    Surrogate.EXPONENTIAL: _exponential,
    Surrogate.SOFT_SIGN: _soft_sign,
    Surrogate.SUPER_SPIKE: _super_spike,
    Surrogate.FAST_SIGMOID: _fast_sigmoid,
    Surrogate.ERF: _erf,
    Surrogate.LOG: _log,
    Surrogate.Q_PSEUDO_SPIKE: _q_pseudo_spike,
    Surrogate.INVERSE: _inverse,
    Surrogate.LOG_TAILED_RELU: _log_tailed_relu,
    Surrogate.TENT: _tent,
    Surrogate.STRAIGHT_THROUGH: _straight_through,
}
TWO_PARAMETERS: dict[Surrogate, Callable[[Tensor, float, float], Tensor]] = {
    Surrogate.LEAKY_RECTANGLE: _leaky_rectangle,
    Surrogate.FOURIER: _fourier,
    Surrogate.S2NN: _s2nn,
    Surrogate.LEAKY_RELU: _leaky_relu,
    Surrogate.SPIKE_RATE_ESCAPE: _spike_rate_escape,
    Surrogate.SPARSE_FAST_SIGMOID: _sparse_fast_sigmoid,
}
UserSurrogate = Callable[[Tensor, float], Tensor]
"""A surrogate of the user's own: (u, alpha) -> derivative, of u's shape and dtype. Only the reference serves it."""


def parse(name: str | UserSurrogate) -> Surrogate | UserSurrogate:
    """Return the surrogate of a public name. An unknown name is an error, never a zero gradient."""
    if callable(name):
        return name
    try:
        return Surrogate[name.upper()]
    except (KeyError, AttributeError):
        known = ", ".join(repr(s.name.lower()) for s in Surrogate)
        raise ValueError(f"surrogate: expected one of {known}, or a function; got {name!r}") from None


def parse_shape(surrogate: Surrogate | UserSurrogate, alpha: float | tuple[float, float]) -> tuple[float, float]:
    """Check `alpha` against the surrogate's parameters, and return (alpha, beta); beta is 0 if there is none."""
    pair = alpha if isinstance(alpha, tuple) else (alpha,)
    two = surrogate in TWO_PARAMETERS
    if len(pair) != 1 + two or not all(isinstance(a, (int, float)) and -math.inf < a < math.inf for a in pair):
        expected = "a pair (alpha, beta) of floats" if two else "a float"
        raise ValueError(f"alpha: expected {expected} for this surrogate, got {alpha!r}")
    lowest = 1.0 if surrogate is Surrogate.Q_PSEUDO_SPIKE else 0.0
    may_be_lowest = surrogate in (Surrogate.LOG_TAILED_RELU, Surrogate.LEAKY_RELU)
    if pair[0] < lowest or (pair[0] == lowest and not may_be_lowest):
        raise ValueError(
            f"alpha: expected a value {'of at least' if may_be_lowest else 'above'} {lowest}, got {alpha!r}"
        )
    if surrogate is Surrogate.FOURIER and not (pair[-1] >= 1 and pair[-1] == int(pair[-1])):
        raise ValueError(f"alpha: expected (frequency, number of terms), the second a whole number >= 1; got {alpha!r}")
    return float(pair[0]), float(pair[-1]) if two else 0.0


def derivative(u: Tensor, surrogate: Surrogate | UserSurrogate, alpha: float, beta: float = 0.0) -> Tensor:
    """Return the reference derivative of `surrogate` at u = h - v_threshold (same shape and dtype)."""
    if not isinstance(surrogate, Surrogate):
        return surrogate(u, alpha)
    if surrogate in TWO_PARAMETERS:
        return TWO_PARAMETERS[surrogate](u, alpha, beta)
    return ONE_PARAMETER[surrogate](u, alpha)
