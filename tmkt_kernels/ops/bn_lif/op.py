"""Schema, fake and autograd of `tmkt::bn_lif_fwd` and `tmkt::bn_lif_bwd`, on contiguous x of shape [T, ...].

Neuron n of a step belongs to channel n // inner % channels. If `mean` and `var` are both None, forward uses and returns
those of the batch, and backward differentiates through them. With a pool_width x is [T, B, C, H, pool_width], and the
spikes are returned as 2x2 averages; 0 means no pooling.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import transforms
from ..lif.recurrence import SCHEMA, Recurrence
from .outputs import new_spikes
from .reference import BatchNorm, average_pool, bn_lif_reference

_PARAMS = f"SymInt channels, SymInt inner, SymInt pool_width, float eps, {SCHEMA}"
FORWARD_SCHEMA = (
    f"(Tensor x, Tensor? v_init, Tensor? weight, Tensor? bias, Tensor? mean, Tensor? var, {_PARAMS}, bool return_v)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
BACKWARD_SCHEMA = (
    "(Tensor? grad_spikes, Tensor? grad_v_last, Tensor? grad_v_seq, Tensor x, Tensor? v_init, Tensor? weight, "
    f"Tensor? bias, Tensor mean, Tensor var, bool batch_statistics, {_PARAMS}) -> (Tensor, Tensor, Tensor, Tensor)"
)


class Inputs(NamedTuple):
    """Arguments shared by forward and backward, apart from gradients and flags."""

    x: Tensor
    v_init: Tensor | None
    norm: BatchNorm
    channels: int
    inner: int
    pool_width: int
    neuron: Recurrence


def forward_arguments(args: Any) -> tuple[Inputs, bool]:
    """Return (inputs, return_v) from the arguments of FORWARD_SCHEMA."""
    x, v_init, weight, bias, mean, var, channels, inner, pool_width, eps, *scalars, return_v = args
    norm = BatchNorm(weight, bias, mean, var, eps)
    return Inputs(x, v_init, norm, channels, inner, pool_width, Recurrence(*scalars)), return_v


def backward_arguments(args: Any) -> tuple[tuple[Tensor | None, ...], Inputs, bool]:
    """Return (gradients of spikes, v_last and v_seq, inputs, batch_statistics) from arguments of BACKWARD_SCHEMA."""
    return args[:3], forward_arguments((*args[3:9], *args[10:], False))[0], args[9]


def fake_forward(*args: Any) -> tuple[Tensor, ...]:
    given, return_v = forward_arguments(args)
    x, own = given.x, given.channels if given.norm.mean is None else 0
    return (
        new_spikes(x, given.pool_width),
        x.new_empty(x.shape[1:], dtype=torch.float32),
        torch.empty_like(x) if return_v else x.new_empty((0,)),
        x.new_empty((own,), dtype=torch.float32),
        x.new_empty((own,), dtype=torch.float32),
    )


def fake_backward(*args: Any) -> tuple[Tensor, ...]:
    _, given, _ = backward_arguments(args)
    x, v_init = given.x, given.v_init
    return (
        torch.empty_like(x),
        x.new_empty((0,), dtype=torch.float32) if v_init is None else torch.empty_like(v_init),
        x.new_empty((given.channels,), dtype=torch.float32),
        x.new_empty((given.channels,), dtype=torch.float32),
    )


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, v_init, weight, bias, mean, var, *params, return_v = inputs
    batch_mean, batch_var = output[3:]
    ctx.mark_non_differentiable(batch_mean, batch_var)
    ctx.batch_statistics = mean is None
    if ctx.batch_statistics:
        mean, var = batch_mean, batch_var
    # The previous layer keeps x anyway. Nothing else of its size is saved; h is recomputed from x.
    ctx.save_for_backward(x, v_init, weight, bias, mean, var)
    ctx.params, ctx.return_v = params, return_v
    ctx.set_materialize_grads(False)


def backward(bwd_op: Any, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_spikes, grad_v_last, grad_v_seq = (g if g is None else g.contiguous() for g in grads[:3])
    x, v_init, weight, bias, mean, var = ctx.saved_tensors
    if not ctx.return_v:
        grad_v_seq = None
    grad_x, grad_v_init, grad_weight, grad_bias = bwd_op(
        grad_spikes, grad_v_last, grad_v_seq, x, v_init, weight, bias, mean, var, ctx.batch_statistics, *ctx.params
    )
    return (
        grad_x,
        None if v_init is None else grad_v_init,
        None if weight is None else grad_weight,
        None if bias is None else grad_bias,
        *[None] * (len(ctx.params) + 3),
    )


def reference_backward(*args: Any) -> tuple[Tensor | None, ...]:
    grads, given, batch_statistics = backward_arguments(args)
    x, norm, mean = given.x, given.norm, given.norm.mean
    assert mean is not None
    if batch_statistics:
        norm = norm._replace(mean=None, var=None)

    def forward(x: Tensor, v_init: Tensor | None, weight: Tensor, bias: Tensor) -> tuple[Tensor | None, ...]:
        affine = norm._replace(weight=weight, bias=bias)
        spikes, v_last, v_seq, *_ = bn_lif_reference(
            x, v_init, affine, given.channels, given.inner, given.neuron, grads[2] is not None
        )
        return spikes if given.pool_width == 0 else average_pool(spikes), v_last, v_seq

    weight = torch.ones_like(mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
    grad_x, grad_v_init, *grad_affine = transforms.vjp(forward, (x, given.v_init, weight, bias), grads)
    return grad_x, x.new_empty((0,), dtype=torch.float32) if grad_v_init is None else grad_v_init, *grad_affine
