"""Surrogate gradients: what stands in for the derivative of the Heaviside step in backward.

Each surrogate is defined by its derivative with respect to u = h - v_threshold. The same
formulas stand once more in csrc/common/surrogate.h (C++ and CUDA) and in lif/triton.py.
"""

import math
from collections.abc import Callable
from enum import IntEnum

import torch
from torch import Tensor


class Surrogate(IntEnum):
    """The surrogates that every backend knows; the numbers are shared with C++ and Triton."""

    ATAN = 0
    SIGMOID = 1
    TRIANGLE = 2
    RECTANGLE = 3


def parse(name: str) -> Surrogate:
    """Look a surrogate up by its public name; an unknown one is an error, never a zero gradient."""
    try:
        return Surrogate[name.upper()]
    except (KeyError, AttributeError):
        known = ", ".join(repr(s.name.lower()) for s in Surrogate)
        raise ValueError(f"surrogate: expected one of {known}; got {name!r}") from None


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


_DERIVATIVES: dict[Surrogate, Callable[[Tensor, float], Tensor]] = {
    Surrogate.ATAN: _atan,
    Surrogate.SIGMOID: _sigmoid,
    Surrogate.TRIANGLE: _triangle,
    Surrogate.RECTANGLE: _rectangle,
}


def derivative(u: Tensor, surrogate: Surrogate, alpha: float) -> Tensor:
    """Reference derivative of `surrogate` at u = h - v_threshold (same shape and dtype)."""
    return _DERIVATIVES[surrogate](u, alpha)
