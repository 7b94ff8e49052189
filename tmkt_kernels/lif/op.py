"""Schema, fake and autograd of `tmkt::lif_fwd` and `tmkt::lif_bwd`, on x of shape [T, N]."""

from typing import Any

import torch
from torch import Tensor

from .. import _library

_PARAMS = "float a, float b, float c, float v_threshold, float? v_reset, int surrogate, float alpha, bool detach_reset"
FORWARD_SCHEMA = f"(Tensor x, Tensor? v_init, {_PARAMS}, bool return_v) -> (Tensor, Tensor, Tensor)"
BACKWARD_SCHEMA = (
    "(Tensor? grad_spikes, Tensor? grad_v_last, Tensor? grad_v_seq, "
    f"Tensor x, Tensor? v_init, {_PARAMS}) -> (Tensor, Tensor)"
)


def _fake_forward(x: Tensor, v_init: Tensor | None, *params: Any) -> tuple[Tensor, Tensor, Tensor]:
    return_v = params[-1]
    v_seq = torch.empty_like(x) if return_v else x.new_empty((0,))
    return torch.empty_like(x), x.new_empty((x.shape[1],), dtype=torch.float32), v_seq


def _fake_backward(
    grad_spikes: Any, grad_v_last: Any, grad_v_seq: Any, x: Tensor, v_init: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty((0,), dtype=torch.float32) if v_init is None else torch.empty_like(v_init)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, v_init, *params, return_v = inputs
    # x is what the layer before keeps anyway: nothing else is kept, h is recomputed from it.
    ctx.save_for_backward(x, v_init)
    ctx.params, ctx.return_v = params, return_v
    ctx.set_materialize_grads(False)


def _backward(bwd_op: Any, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_spikes, grad_v_last, grad_v_seq = (g if g is None else g.contiguous() for g in grads)
    x, v_init = ctx.saved_tensors
    if not ctx.return_v:
        grad_v_seq = None
    grad_x, grad_v_init = bwd_op(grad_spikes, grad_v_last, grad_v_seq, x, v_init, *ctx.params)
    return grad_x, None if v_init is None else grad_v_init, *[None] * (len(ctx.params) + 1)


def _triton_forward(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    from .triton import lif_fwd  # Triton is optional, and slow to import

    return lif_fwd(*args)


def _triton_backward(*args: Any) -> tuple[Tensor, Tensor]:
    from .triton import lif_bwd

    return lif_bwd(*args)


_library.register(
    "lif",
    forward_schema=FORWARD_SCHEMA,
    backward_schema=BACKWARD_SCHEMA,
    fake_forward=_fake_forward,
    fake_backward=_fake_backward,
    setup_context=_setup_context,
    backward=_backward,
    triton_forward=_triton_forward,
    triton_backward=_triton_backward,
)
