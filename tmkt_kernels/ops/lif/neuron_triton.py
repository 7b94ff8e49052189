"""The neurons of the lif family in Triton: one step and its adjoint; mirrors reference.py and its order of rounding."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from ..scan_values import Neuron
from ..surrogate_triton import surrogate_derivative
from .recurrence import Recurrence, Reset

HARD = tl.constexpr(int(Reset.HARD))
SOFT = tl.constexpr(int(Reset.SOFT))
DELAYED_SUBTRACT = tl.constexpr(int(Reset.DELAYED_SUBTRACT))
DELAYED_ZERO = tl.constexpr(int(Reset.DELAYED_ZERO))


class Values(NamedTuple):
    """The parameters of neurons: scalars, or blocks with one value per neuron."""

    a: Any
    b: Any
    c: Any
    v_threshold: Any
    v_reset: Any
    alpha: Any
    beta: Any


class Parameters(NamedTuple):
    """A kernel's arguments from a `Recurrence`: scalars, and a pointer to [5, channels] or None."""

    shared: Values
    coefficients: Any


@triton.jit
def load(parameters, channels, inner, o_n, m_n):
    """Load the parameters of neurons o_n, from their channels if there are coefficients."""
    p = parameters.shared
    if parameters.coefficients is not None:
        row = parameters.coefficients + o_n // inner % channels
        a = tl.load(row, mask=m_n, other=0)
        b = tl.load(row + channels, mask=m_n, other=0)
        c = tl.load(row + 2 * channels, mask=m_n, other=0)
        v_threshold = tl.load(row + 3 * channels, mask=m_n, other=0)
        v_reset = tl.load(row + 4 * channels, mask=m_n, other=0)
        p = Values(a, b, c, v_threshold, v_reset, p.alpha, p.beta)
    return p


@triton.jit
def fires(h, p, NEURON: tl.constexpr):
    """Where h fires. With delayed resets (snnTorch's neurons), only above the threshold."""
    return h > p.v_threshold if NEURON.reset >= DELAYED_SUBTRACT else h >= p.v_threshold


@triton.jit
def after(h, p, NEURON: tl.constexpr):
    """v after the step; with a delayed reset, h itself."""
    if NEURON.reset == HARD:
        return tl.where(fires(h, p, NEURON), p.v_reset, h)
    if NEURON.reset == SOFT:
        return tl.where(fires(h, p, NEURON), h - p.v_threshold, h)
    return h


@triton.jit
def charge(v, current, p, NEURON: tl.constexpr):
    """(v[t-1], current[t]) -> h[t]"""
    r = fires(v, p, NEURON)
    if NEURON.reset == DELAYED_ZERO:
        v = tl.where(r, 0.0, v)
    h = p.a * v + p.b * current + p.c
    if NEURON.reset == DELAYED_SUBTRACT:
        h = tl.where(r, h - p.v_threshold, h)
    return h


@triton.jit
def adjoint_of_reset(h, grad_v, ds_dh, p, NEURON: tl.constexpr):
    """Gradient of h through v = after(h)."""
    through_v = grad_v
    if NEURON.reset == HARD:
        through_v = tl.where(fires(h, p, NEURON), 0.0, grad_v)
        if not NEURON.detach_reset:
            through_v += grad_v * ((p.v_reset - h) * ds_dh)
    elif NEURON.reset == SOFT:
        if not NEURON.detach_reset:
            through_v += grad_v * (-p.v_threshold * ds_dh)
    return through_v


@triton.jit
def adjoint(step, grads, p, NEURON: tl.constexpr):
    """Gradients of a step's outputs -> gradients of v[t-1], of the current and of h[t], and ds/dh."""
    ds_dh = surrogate_derivative(step.h - p.v_threshold, p.alpha, p.beta, NEURON.surrogate)
    g_h = adjoint_of_reset(step.h, grads.v, ds_dh, p, NEURON)
    if grads.s is not None:
        g_h += grads.s * ds_dh
    if grads.h is not None:
        g_h += grads.h
    g_v = p.a * g_h
    if NEURON.reset == DELAYED_ZERO:
        g_v = tl.where(fires(step.v, p, NEURON), 0.0, g_v)
    return g_v, p.b * g_h, g_h, ds_dh


@triton.jit
def parameter_gradients(step, grads, g_h, ds_dh, p, NEURON: tl.constexpr):
    """Terms of one step in the gradients of a, b, c, v_threshold and v_reset; g_h and ds_dh come from `adjoint`."""
    v = step.v
    fired, reset_before = fires(step.h, p, NEURON), fires(v, p, NEURON)
    g_threshold = tl.zeros_like(g_h)
    g_reset = tl.zeros_like(g_h)
    if grads.s is not None:
        g_threshold -= grads.s * ds_dh
    if NEURON.reset == HARD:
        g_reset = tl.where(fired, grads.v, 0.0)
        if not NEURON.detach_reset:
            g_threshold -= grads.v * ((p.v_reset - step.h) * ds_dh)
    elif NEURON.reset == SOFT:
        g_threshold -= tl.where(fired, grads.v, 0.0)
        if not NEURON.detach_reset:
            g_threshold += grads.v * (p.v_threshold * ds_dh)
    elif NEURON.reset == DELAYED_SUBTRACT:
        g_threshold -= tl.where(reset_before, g_h, 0.0)
    elif NEURON.reset == DELAYED_ZERO:
        v = tl.where(reset_before, 0.0, v)
    return g_h * v, g_h * step.current, g_h, g_threshold, g_reset


def forward_neuron(recurrence: Recurrence) -> tuple[Neuron, Parameters]:
    """Return the neuron in the form for forward's launch, and its parameters. One kernel serves all surrogates."""
    return backward_neuron(recurrence._replace(surrogate=0, detach_reset=True))


def backward_neuron(recurrence: Recurrence) -> tuple[Neuron, Parameters]:
    r = recurrence
    variant = {"reset": r.reset, "surrogate": r.surrogate, "detach_reset": r.detach_reset}
    neuron = Neuron(load, charge, fires, after, adjoint, **variant, parameter_gradients=parameter_gradients)
    return neuron, Parameters(Values(r.a, r.b, r.c, r.v_threshold, r.v_reset, r.alpha, r.beta), r.coefficients)
