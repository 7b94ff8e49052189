"""Registers an operator with torch.library: schema, fake, autograd and Triton implementation in one call.

Schemas live in Python so that operators exist without the compiled library; C++ and CUDA only
register implementations of `tmkt::<name>_fwd` and `tmkt::<name>_bwd`. The Triton kernels serve
`tmkt::<name>_fwd_triton` and `tmkt::<name>_bwd_triton`, with the same schema, fake and autograd.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch

# The kernels read raw memory: torch.compile must hand over the strides that eager code would.
_TAGS = (torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag)


def _no_second_order(name: str) -> Callable[..., Any]:
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            f"{name}: second-order gradients are not implemented by this backend; use backend='reference'"
        )

    return backward


def register(
    name: str,
    *,
    forward_schema: str,
    backward_schema: str,
    fake_forward: Callable[..., Any],
    fake_backward: Callable[..., Any],
    setup_context: Callable[..., Any],
    backward: Callable[..., Any],
    triton_forward: Callable[..., Any],
    triton_backward: Callable[..., Any],
) -> dict[str, Callable[..., Any]]:
    """Define both families of operator `name`; returns how to call each, by backend.

    `backward(bwd_op, ctx, *grads)` gets the backward operator of its own family as first argument.
    """
    calls = {}
    for backend, suffix, kernels in (("native", "", None), ("triton", "_triton", (triton_forward, triton_backward))):
        fwd, bwd = f"tmkt::{name}_fwd{suffix}", f"tmkt::{name}_bwd{suffix}"
        torch.library.define(fwd, forward_schema, tags=_TAGS)
        torch.library.define(bwd, backward_schema, tags=_TAGS)
        torch.library.register_fake(fwd, fake_forward)
        torch.library.register_fake(bwd, fake_backward)
        fwd_op, bwd_op = (getattr(torch.ops.tmkt, f"{name}_{way}{suffix}").default for way in ("fwd", "bwd"))
        family_backward = functools.partial(backward, bwd_op)
        torch.library.register_autograd(fwd, family_backward, setup_context=setup_context)
        torch.library.register_autograd(bwd, _no_second_order(name))
        if kernels is not None:
            for op, kernel in zip((fwd, bwd), kernels, strict=True):
                torch.library.impl(op, ("cpu", "cuda"), kernel)
        calls[backend] = _call(fwd_op, bwd_op, setup_context, backward)
    return calls


# Private to torch, though its own operators in Python stand on them; where a release lacks one, the slow way serves.
_below_autograd = getattr(torch._C, "_AutoDispatchBelowAutograd", contextlib.nullcontext)
_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)


def _call(fwd_op: Any, bwd_op: Any, setup_context: Callable[..., Any], backward: Callable[..., Any]) -> Any:
    """`fwd_op`, called from eager code. The same autograd as registered, entered directly and without setup_context,
    whose arguments torch binds anew each time: the way through the dispatcher costs more than many a kernel."""

    def kernel_bwd(*args: Any) -> Any:
        if torch.is_grad_enabled():  # create_graph=True
            return bwd_op(*args)
        with _below_autograd():
            return bwd_op(*args)

    derivative = functools.partial(backward, kernel_bwd)

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            with _below_autograd():
                output = fwd_op(*args)
            setup_context(ctx, args, output)
            return output

        backward = staticmethod(derivative)

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling() or _transforms_active():
            return fwd_op(*args)
        return Eager.apply(*args)

    return call
