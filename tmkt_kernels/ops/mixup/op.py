"""Schema, fake and autograd of `tmkt::mixup_fwd` and `tmkt::mixup_bwd`."""

from typing import Any

import torch
from torch import Tensor

from .. import transforms
from .reference import Selection, mixup_reference

FORWARD_SCHEMA = (
    "(Tensor static, Tensor events, Tensor switch_step, Tensor? static_index, Tensor? event_index, "
    "float static_scale, float event_scale, ScalarType dtype) -> Tensor"
)
# `static` and `events` tell backward their shapes and dtypes; their values are not read.
BACKWARD_SCHEMA = (
    "(Tensor grad, Tensor static, Tensor events, Tensor switch_step, Tensor? static_index, Tensor? event_index, "
    "float static_scale, float event_scale, bool need_static, bool need_events) -> (Tensor, Tensor)"
)


def fake_forward(static: Tensor, events: Tensor, *args: Any) -> Tensor:
    switch_step, dtype = args[0], args[-1]
    return events.new_empty((events.shape[0], switch_step.shape[0], *events.shape[2:]), dtype=dtype)


def fake_backward(grad: Tensor, static: Tensor, events: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    need_static, need_events = args[-2:]
    return (
        torch.empty_like(static) if need_static else grad.new_empty((0,)),
        torch.empty_like(events) if need_events else grad.new_empty((0,)),
    )


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    static, events, switch_step, static_index, event_index, static_scale, event_scale, _ = inputs
    ctx.save_for_backward(static, events, switch_step, static_index, event_index)
    ctx.scales = static_scale, event_scale


def backward(bwd_op: Any, ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    need_static, need_events = ctx.needs_input_grad[:2]
    grad_static, grad_events = bwd_op(grad.contiguous(), *ctx.saved_tensors, *ctx.scales, need_static, need_events)
    return grad_static if need_static else None, grad_events if need_events else None, *[None] * 6


def reference_backward(grad: Tensor, static: Tensor, events: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    selection = Selection(*args[:-2])
    need_static, need_events = args[-2:]

    def forward(static_leaf: Tensor | None, events_leaf: Tensor | None) -> tuple[Tensor]:
        images, recordings = (
            static if static_leaf is None else static_leaf,
            events if events_leaf is None else events_leaf,
        )
        return (mixup_reference(images, recordings, selection, grad.dtype),)

    leaves = static if need_static else None, events if need_events else None
    grad_static, grad_events = (
        grad.new_empty((0,)) if g is None else g for g in transforms.vjp(forward, leaves, (grad,))
    )
    return grad_static, grad_events
