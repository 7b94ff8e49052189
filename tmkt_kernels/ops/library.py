"""Registration of an operator with torch.library: schema, fake, autograd and Triton implementation in one call.

The compiled library defines the schemas of `tmkt::<name>_fwd` and `tmkt::<name>_bwd` beside their C++ and CUDA
implementations, so that a program without Python has them. Without the library they are defined here. The Triton
kernels serve `tmkt::<name>_fwd_triton` and `tmkt::<name>_bwd_triton`, with the same schema, fake and autograd.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch

from ..extension import extension as extension  # loads the library, before its schemas are looked up
from . import numbers, transforms
from .definition import Definition
from .graph_calls import CALLS

# The kernels read raw memory, so torch.compile must pass the strides of eager code. It does so by default; the tags
# require it for operators that are defined here.
_TAGS = (torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag)


def register(name: str, definition: Definition) -> dict[str, Callable[..., Any]]:
    """Define both families of operator `name`; return a callable for each backend."""
    setup_context, backward = definition.setup_context, definition.backward
    second_order = transforms.second_order(definition.reference_backward)
    schemas = {
        "fwd": (definition.FORWARD_SCHEMA, definition.fake_forward),
        "bwd": (definition.BACKWARD_SCHEMA, definition.fake_backward),
    }
    calls = {}
    for backend, suffix in (("native", ""), ("triton", "_triton")):
        for way, (schema, fake) in schemas.items():
            if not hasattr(torch.ops.tmkt, f"{name}_{way}{suffix}"):
                torch.library.define(f"tmkt::{name}_{way}{suffix}", schema, tags=_TAGS)
            torch.library.register_fake(f"tmkt::{name}_{way}{suffix}", fake)
        fwd_op, bwd_op = (getattr(torch.ops.tmkt, f"{name}_{way}{suffix}").default for way in ("fwd", "bwd"))
        family_backward = functools.partial(backward, bwd_op)
        torch.library.register_autograd(fwd_op, family_backward, setup_context=setup_context)
        torch.library.register_autograd(bwd_op, second_order[1], setup_context=second_order[0])
        if backend == "triton":
            for op, way in ((fwd_op, "forward"), (bwd_op, "backward")):
                torch.library.impl(op.name(), ("cpu", "cuda"), _triton_kernel(name, way))
        under_transforms = transforms.transformable(
            fwd_op, setup_context, functools.partial(backward, transforms.transformable(bwd_op, *second_order))
        )
        with_numbers = numbers.register(definition, fwd_op, bwd_op)
        key = f"{name}{suffix}"
        CALLS[key] = _in_graph_call(under_transforms, with_numbers)
        calls[backend] = _call(definition, key, fwd_op, bwd_op, under_transforms)
    return calls


def register_forward(
    name: str, schema: str, fake: Callable[..., Any], triton_folder: str | None = None
) -> dict[str, Callable[..., Any]]:
    """Define operator `name`, which has no derivative; return a callable for each backend.

    triton_folder: the operator's folder, whose module `triton` has its Triton implementation `forward`; None if it has
        none.
    """
    calls = {}
    for backend, suffix in (("native", ""), ("triton", "_triton"))[: 1 if triton_folder is None else 2]:
        if not hasattr(torch.ops.tmkt, f"{name}{suffix}"):
            torch.library.define(f"tmkt::{name}{suffix}", schema, tags=_TAGS)
        torch.library.register_fake(f"tmkt::{name}{suffix}", fake)
        calls[backend] = getattr(torch.ops.tmkt, f"{name}{suffix}").default
    if triton_folder is not None:
        torch.library.impl(f"tmkt::{name}_triton", ("cpu", "cuda"), _triton_kernel(triton_folder, "forward"))
    return calls


def _triton_kernel(name: str, way: str) -> Callable[..., Any]:
    """`forward` or `backward` of ops/<name>/triton.py, imported at the first call, as Triton is optional and slow."""

    @functools.cache
    def function() -> Callable[..., Any]:
        return getattr(importlib.import_module(f"{__package__}.{name}.triton"), way)

    return lambda *args: function()(*args)


def _in_graph_call(under_transforms: Callable[..., Any], with_numbers: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: (under_transforms if transforms.active() else with_numbers)(*args)


# Private API of torch, on which its own operators in Python rely. If a release lacks it, the slower path serves.
_below_autograd = getattr(torch._C, "_AutoDispatchBelowAutograd", contextlib.nullcontext)


def _call(
    definition: Definition, key: str, fwd_op: Any, bwd_op: Any, under_transforms: Callable[..., Any]
) -> Callable[..., Any]:
    """Call `fwd_op` from eager code: the registered autograd, entered directly.

    torch.library would bind the arguments of setup_context anew at each call, which takes longer than a small kernel.
    """
    setup_context, backward = definition.setup_context, definition.backward

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
        if torch.compiler.is_compiling():
            return transforms.call_in_graph(key, *args)
        if transforms.active():
            return under_transforms(*args)
        if torch._C._is_tracing():  # torch.jit.trace records operators, but not a Function
            return fwd_op(*args)
        return Eager.apply(*args)

    return call
