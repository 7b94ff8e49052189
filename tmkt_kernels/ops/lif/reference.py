"""Definition of LIF: the update rule in plain PyTorch. Every backend is tested against this file.

h[t] = a v[t-1] + b x[t] + c                  charge
s[t] = h[t] >= v_threshold                    fire
v[t] = v_reset where s[t], else h[t]          hard reset
v[t] = h[t] - s[t] v_threshold                soft reset

snnTorch's neurons fire at h[t] > v_threshold, keep v[t] = h[t], and reset when they next charge:

h[t] = a v[t-1] + b x[t] + c - (v[t-1] > v_threshold) v_threshold    delayed subtraction
h[t] = a v[t-1] (v[t-1] <= v_threshold) + b x[t] + c                 delayed zero
"""

from typing import Any

import torch
from torch import Tensor

from ... import surrogate as sg
from ...backends import forward_mode
from .. import transforms
from ..graph_calls import CALLS
from .recurrence import Recurrence, Reset, of_neurons


class Fire(torch.autograd.Function):
    """Heaviside step of u = h - v_threshold, at u >= 0 or, if `strict`, u > 0; backward multiplies by the surrogate's
    derivative. Backward consists of differentiable PyTorch operations, so that second-order gradients exist. Called by
    `fire`, which serves torch.func too."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: Any, alpha: float, beta: float = 0.0, strict: bool = False) -> Tensor:
        Fire._save(ctx, u, surrogate, alpha, beta)
        return heaviside(u, strict)

    @staticmethod
    def _save(ctx: Any, u: Tensor, surrogate: Any, alpha: float, beta: float) -> None:
        ctx.save_for_backward(u)
        ctx.surrogate = sg.Surrogate(surrogate) if isinstance(surrogate, int) else surrogate
        ctx.shape = alpha, beta

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (u,) = ctx.saved_tensors
        return grad * sg.derivative(u, ctx.surrogate, *ctx.shape), None, None, None, None


class TransformableFire(torch.autograd.Function):
    """Fire under torch.func and with tangents. Slower, and torch.compile does not trace its jvp."""

    generate_vmap_rule = True
    backward = staticmethod(Fire.backward)

    @staticmethod
    def forward(u: Tensor, surrogate: Any, alpha: float, beta: float, strict: bool) -> Tensor:
        return heaviside(u, strict)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        Fire._save(ctx, *inputs[:4])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *others: None) -> Tensor | None:
        return TransformableFire.backward(ctx, tangent)[0]  # the Jacobian is diagonal


def _fire(*args: Any) -> Tensor:
    return (TransformableFire if transforms.active() or forward_mode() else Fire).apply(*args)


CALLS["fire"] = _fire


def heaviside(u: Tensor, strict: bool) -> Tensor:
    return (u > 0 if strict else u >= 0).to(u.dtype)


def fire(u: Tensor, surrogate: Any, alpha: float, beta: float = 0.0, strict: bool = False) -> Tensor:
    """Return spikes of u = h - v_threshold, 1 where u >= 0 or, if `strict`, u > 0.

    Differentiable by the surrogate any number of times, in plain PyTorch and under every transform of torch.func.

    Args:
        u: of any shape and floating-point dtype.
        surrogate: a `Surrogate`, its number, or a function (u, alpha) -> derivative.
        alpha, beta: the surrogate's shape.
    """
    if torch.compiler.is_compiling() and isinstance(surrogate, int):
        return transforms.call_in_graph("fire", u, int(surrogate), alpha, beta, strict)
    return _fire(u, surrogate, alpha, beta, strict)


def lif_step(v: Tensor, x: Tensor, p: Recurrence) -> tuple[Tensor, Tensor, Tensor]:
    """One time step: (v[t-1], x[t]) -> (s[t], v[t], h[t])."""
    reset = Reset(p.reset)
    if reset is Reset.DELAYED_ZERO:
        v = torch.where(v > p.v_threshold, 0.0, v)
    h = p.a * v + p.b * x + p.c
    if reset is Reset.DELAYED_SUBTRACT:
        h = torch.where(v > p.v_threshold, h - p.v_threshold, h)
    s = fire(h - p.v_threshold, p.surrogate, p.alpha, p.beta, reset.strict)
    if reset is Reset.SOFT:
        return s, h - (s.detach() if p.detach_reset else s) * p.v_threshold, h
    if reset is Reset.HARD:
        v = torch.where(s > 0, p.v_reset, h)
        if not p.detach_reset:
            dv_ds = torch.where(h.isinf(), 0.0, p.v_reset - h)  # 0 times infinity would be NaN
            v = v + (s - s.detach()) * dv_ds  # adds 0 to the value, and the gradient
        return s, v, h
    return s, h, h


def lif_reference(
    x_seq: Tensor, v_init: Tensor | None, neuron: Recurrence, return_v: bool, inner: int = 1
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loop over T. x_seq [T, ...], v_init [...] -> spikes [T, ...], v_last [...], v_seq [T, ...] or None.

    If the neuron has coefficients [5, channels], neuron n of a step has those of channel n // inner % channels.
    Without v_init the neurons start at rest, at v_reset.
    Arithmetic is in fp32, or in fp64 for an fp64 input; spikes and v_seq have x_seq's dtype.
    """
    compute = torch.promote_types(x_seq.dtype, torch.float32)
    step = x_seq.shape[1:]
    if neuron.coefficients is not None:
        five = of_neurons(neuron.coefficients.to(compute), inner, step.numel()).view(5, *step)
        neuron = Recurrence(*five, *neuron.scalars()[5:])
    v = torch.zeros_like(x_seq[0], dtype=compute) + neuron.v_reset if v_init is None else v_init.to(compute)
    spikes, charges = [], []
    for x in x_seq.unbind(0):
        s, v, h = lif_step(v, x.to(compute), neuron)
        spikes.append(s.to(x_seq.dtype))
        if return_v:
            charges.append(h.to(x_seq.dtype))
    return torch.stack(spikes), v, torch.stack(charges) if return_v else None
