"""What LIF means: the update rule in plain PyTorch. Every backend is tested against this file.

h[t] = a v[t-1] + b x[t] + c            charge
s[t] = h[t] >= v_threshold              fire
v[t] = v_reset where s[t], else h[t]    hard reset
v[t] = h[t] - s[t] v_threshold          soft reset (v_reset is None)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import surrogate as sg


class LIFParams(NamedTuple):
    """The scalars of the recurrence, in the order of the operators' schemas."""

    a: float
    b: float
    c: float
    v_threshold: float
    v_reset: float | None
    surrogate: int
    alpha: float
    detach_reset: bool


class Fire(torch.autograd.Function):
    """Heaviside step of u = h - v_threshold, at u >= 0; backward multiplies by the surrogate's derivative.

    Backward is made of differentiable PyTorch operations, so second-order gradients exist here.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: int, alpha: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate, ctx.alpha = surrogate, alpha
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (u,) = ctx.saved_tensors
        return grad * sg.derivative(u, sg.Surrogate(ctx.surrogate), ctx.alpha), None, None


def lif_step(v: Tensor, x: Tensor, p: LIFParams) -> tuple[Tensor, Tensor, Tensor]:
    """One time step: (v[t-1], x[t]) -> (s[t], v[t], h[t])."""
    h = p.a * v + p.b * x + p.c
    s: Tensor = Fire.apply(h - p.v_threshold, p.surrogate, p.alpha)
    if p.v_reset is None:
        return s, h - (s.detach() if p.detach_reset else s) * p.v_threshold, h
    v = torch.where(s > 0, p.v_reset, h)
    if not p.detach_reset:
        v = v + (s - s.detach()) * (p.v_reset - h)  # adds 0, and dv/ds
    return s, v, h


def lif_reference(
    x_seq: Tensor, v_init: Tensor | None, p: LIFParams, return_v: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loop over T. x_seq [T, N], v_init [N] -> spikes [T, N], v_last [N], v_seq [T, N] or None.

    Without v_init the neurons start at rest: at v_reset, or at 0 where the reset is soft.
    Arithmetic in fp32, or in fp64 for an fp64 input; spikes and v_seq come in x_seq's dtype.
    """
    compute = torch.promote_types(x_seq.dtype, torch.float32)
    v = x_seq.new_full(x_seq.shape[1:], p.v_reset or 0.0, dtype=compute) if v_init is None else v_init.to(compute)
    spikes, charges = [], []
    for x in x_seq.unbind(0):
        s, v, h = lif_step(v, x.to(compute), p)
        spikes.append(s.to(x_seq.dtype))
        if return_v:
            charges.append(h.to(x_seq.dtype))
    return torch.stack(spikes), v, torch.stack(charges) if return_v else None
