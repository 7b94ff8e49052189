"""A quadratic integrate-and-fire neuron for the scan in Triton: the worked example of CONTRIBUTING.md."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from tmkt_kernels.ops.scan_values import Neuron
from tmkt_kernels.ops.surrogate_triton import surrogate_derivative
from tmkt_kernels.surrogate import Surrogate


class Parameters(NamedTuple):
    """h = v + (a v (v - v_c) + current) / tau; a spike where h >= v_threshold, then v = v_reset."""

    a: Any = 1.0
    v_c: Any = 0.5
    tau: Any = 2.0
    v_threshold: Any = 1.0
    v_reset: Any = 0.0
    alpha: Any = 2.0


@triton.jit
def load(p, channels, inner, o_n, m_n):
    return p


@triton.jit
def charge(v, current, p, NEURON: tl.constexpr):
    return v + (p.a * v * (v - p.v_c) + current) / p.tau


@triton.jit
def fires(h, p, NEURON: tl.constexpr):
    return h - p.v_threshold >= 0


@triton.jit
def after(h, p, NEURON: tl.constexpr):
    return tl.where(fires(h, p, NEURON), p.v_reset, h)


@triton.jit
def adjoint(step, grads, p, NEURON: tl.constexpr):
    ds_dh = surrogate_derivative(step.h - p.v_threshold, p.alpha, 0.0, NEURON.surrogate)
    g_h = tl.where(fires(step.h, p, NEURON), 0.0, grads.v)
    if grads.s is not None:
        g_h += grads.s * ds_dh
    if grads.h is not None:
        g_h += grads.h
    return g_h * (1 + p.a * (2 * step.v - p.v_c) / p.tau), g_h / p.tau, g_h, ds_dh


QIF = Neuron(load, charge, fires, after, adjoint, reset=0, surrogate=int(Surrogate.ATAN), detach_reset=True)
