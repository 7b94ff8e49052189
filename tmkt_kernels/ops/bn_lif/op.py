"""Schema, fake and autograd of `tmkt::bn_lif_fwd` and `tmkt::bn_lif_bwd`, on contiguous x of shape [T, ...].

Neuron n of a step belongs to channel n // inner % channels. `mean` and `var` are given, or both None: then they are
those of the batch, which forward returns and backward differentiates through. With a pool_width x is
[T, B, C, H, pool_width], and the spikes come as their 2x2 averages; 0 leaves them as they are.
"""

from typing import Any

import torch
from torch import Tensor

from .. import library, transforms
from ..lif.reference import LIFParams
from .outputs import new_spikes
from .reference import average_pool, bn_lif_reference

_PARAMS = (
    "SymInt channels, SymInt inner, SymInt pool_width, float eps, float a, float b, float c, float v_threshold, "
    "float v_reset, int reset, int surrogate, float alpha, float beta, bool detach_reset"
)
FORWARD_SCHEMA = (
    f"(Tensor x, Tensor? v_init, Tensor? weight, Tensor? bias, Tensor? mean, Tensor? var, {_PARAMS}, bool return_v)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
BACKWARD_SCHEMA = (
    "(Tensor? grad_spikes, Tensor? grad_v_last, Tensor? grad_v_seq, Tensor x, Tensor? v_init, Tensor? weight, "
    f"Tensor? bias, Tensor mean, Tensor var, bool batch_statistics, {_PARAMS}) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _fake_forward(
    x: Tensor,
    v_init: Any,
    weight: Any,
    bias: Any,
    mean: Tensor | None,
    var: Any,
    channels: int,
    inner: int,
    pool_width: int,
    *params: Any,
) -> tuple[Tensor, ...]:
    return_v = params[-1]
    own = channels if mean is None else 0
    return (
        new_spikes(x, pool_width),
        x.new_empty(x.shape[1:], dtype=torch.float32),
        torch.empty_like(x) if return_v else x.new_empty((0,)),
        x.new_empty((own,), dtype=torch.float32),
        x.new_empty((own,), dtype=torch.float32),
    )


def _fake_backward(
    grad_spikes: Any, grad_v_last: Any, grad_v_seq: Any, x: Tensor, v_init: Tensor | None, *rest: Any
) -> tuple[Tensor, ...]:
    channels = rest[5]
    return (
        torch.empty_like(x),
        x.new_empty((0,), dtype=torch.float32) if v_init is None else torch.empty_like(v_init),
        x.new_empty((channels,), dtype=torch.float32),
        x.new_empty((channels,), dtype=torch.float32),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, v_init, weight, bias, mean, var, *params, return_v = inputs
    batch_mean, batch_var = output[3:]
    ctx.mark_non_differentiable(batch_mean, batch_var)
    ctx.batch_statistics = mean is None
    if ctx.batch_statistics:
        mean, var = batch_mean, batch_var
    # x is what the layer before keeps anyway: nothing else of its size is kept, h is recomputed from it.
    ctx.save_for_backward(x, v_init, weight, bias, mean, var)
    ctx.params, ctx.return_v = params, return_v
    ctx.set_materialize_grads(False)


def _backward(bwd_op: Any, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
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


def _reference_backward(
    grad_spikes: Tensor | None,
    grad_v_last: Tensor | None,
    grad_v_seq: Tensor | None,
    x: Tensor,
    v_init: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    batch_statistics: bool,
    channels: int,
    inner: int,
    pool_width: int,
    eps: float,
    *params: Any,
) -> tuple[Tensor | None, ...]:
    given: Any = (None, None) if batch_statistics else (mean, var)
    sizes: Any = (channels, inner, eps, LIFParams(*params), grad_v_seq is not None)

    def forward(x: Tensor, v_init: Tensor | None, weight: Tensor, bias: Tensor) -> tuple[Tensor | None, ...]:
        spikes, v_last, v_seq, *_ = bn_lif_reference(x, v_init, weight, bias, *given, *sizes)
        return spikes if pool_width == 0 else average_pool(spikes), v_last, v_seq

    weight = torch.ones_like(mean) if weight is None else weight
    bias = torch.zeros_like(mean) if bias is None else bias
    grads = (grad_spikes, grad_v_last, grad_v_seq)
    grad_x, grad_v_init, *grad_affine = transforms.vjp(forward, (x, v_init, weight, bias), grads)
    return grad_x, x.new_empty((0,), dtype=torch.float32) if grad_v_init is None else grad_v_init, *grad_affine


def _triton_forward(*args: Any) -> tuple[Tensor, ...]:
    from .triton import bn_lif_fwd  # Triton is optional, and slow to import

    return bn_lif_fwd(*args)


def _triton_backward(*args: Any) -> tuple[Tensor, ...]:
    from .triton import bn_lif_bwd

    return bn_lif_bwd(*args)


CALL = library.register(
    "bn_lif",
    forward_schema=FORWARD_SCHEMA,
    backward_schema=BACKWARD_SCHEMA,
    fake_forward=_fake_forward,
    fake_backward=_fake_backward,
    setup_context=_setup_context,
    backward=_backward,
    reference_backward=_reference_backward,
    triton_forward=_triton_forward,
    triton_backward=_triton_backward,
)
