"""Schema, fake and autograd of `tmkt::lif_fwd` and `tmkt::lif_bwd`, on contiguous x of shape [T, ...].

`coefficients` [5, channels] in float32, if given, hold a, b, c, v_threshold and v_reset and replace the floats:
neuron n of a step has those of channel n // inner % channels.
"""

from typing import Any

import torch
from torch import Tensor

from .. import transforms
from .recurrence import SCHEMA, Recurrence, of_neurons
from .reference import lif_reference

_INPUTS = f"Tensor x, Tensor? v_init, Tensor? coefficients, SymInt inner, {SCHEMA}"
FORWARD_SCHEMA = f"({_INPUTS}, bool return_v) -> (Tensor, Tensor, Tensor)"
BACKWARD_SCHEMA = (
    f"(Tensor? grad_spikes, Tensor? grad_v_last, Tensor? grad_v_seq, {_INPUTS}, bool need_coefficients)"
    " -> (Tensor, Tensor, Tensor)"
)


def fake_forward(x: Tensor, v_init: Tensor | None, *params: Any) -> tuple[Tensor, Tensor, Tensor]:
    return_v = params[-1]
    v_seq = torch.empty_like(x) if return_v else x.new_empty((0,))
    return torch.empty_like(x), x.new_empty(x.shape[1:], dtype=torch.float32), v_seq


def fake_backward(
    grad_spikes: Any, grad_v_last: Any, grad_v_seq: Any, x: Tensor, v_init: Tensor | None, *params: Any
) -> tuple[Tensor, Tensor, Tensor]:
    need_coefficients = params[-1]
    return (
        torch.empty_like(x),
        x.new_empty((0,), dtype=torch.float32) if v_init is None else torch.empty_like(v_init),
        x.new_empty((5, x[0].numel() if need_coefficients else 0), dtype=torch.float32),
    )


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, v_init, coefficients, *params, return_v = inputs
    # The previous layer keeps x anyway. Nothing else is saved; h is recomputed from x.
    ctx.save_for_backward(x, v_init, coefficients)
    ctx.params, ctx.return_v = params, return_v
    ctx.set_materialize_grads(False)


def backward(bwd_op: Any, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_spikes, grad_v_last, grad_v_seq = (g if g is None else g.contiguous() for g in grads)
    x, v_init, coefficients = ctx.saved_tensors
    if not ctx.return_v:
        grad_v_seq = None
    need = ctx.needs_input_grad[2]
    grad_x, grad_v_init, grad_each = bwd_op(
        grad_spikes, grad_v_last, grad_v_seq, x, v_init, coefficients, *ctx.params, need
    )
    grad_coefficients = None
    if need:  # [5, N], summed over each channel's neurons without atomics, for the same bits in every run
        inner = ctx.params[0]
        grad_coefficients = grad_each.view(5, -1, coefficients.shape[1], inner).sum((1, 3))
    return grad_x, None if v_init is None else grad_v_init, grad_coefficients, *[None] * (len(ctx.params) + 1)


def reference_backward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    *grads, x, v_init, coefficients, inner = args[:7]
    scalars, need_coefficients = args[7:-1], args[-1]
    each = None
    if coefficients is not None:
        each = of_neurons(coefficients, inner, x[0].numel())
        if v_init is None:  # rest, whose gradient another operator computes
            v_init = each[4].detach().view(x.shape[1:])

    def forward(x: Tensor, v_init: Tensor | None, each: Tensor | None) -> tuple[Tensor | None, ...]:
        return lif_reference(x, v_init, Recurrence.of(scalars, each), grads[2] is not None)

    grad_x, grad_v_init, grad_each = transforms.vjp(forward, (x, v_init, each), grads)
    assert grad_x is not None
    return (
        grad_x,
        x.new_empty((0,), dtype=torch.float32) if grad_v_init is None else grad_v_init,
        grad_each if need_coefficients and grad_each is not None else x.new_empty((5, 0), dtype=torch.float32),
    )
