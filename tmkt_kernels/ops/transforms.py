"""torch.func on operators: grad, vjp, jacrev, vmap and transforms made of them; and gradients of gradients.

Under a transform an operator is a torch.autograd.Function with the transform's rules. Plain calls have a faster one,
see library.py. torch.compile would trace such a Function wrongly under a transform (torch 2.14: gradients of zero, no
error), so that the graph contains it as one call, which torch opens when it runs the transforms.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# Private API of torch, which has no public equivalent.
active: Callable[[], bool] = torch._C._are_functorch_transforms_active
"""Return whether a transform of torch.func is active."""


def wraps(value: Tensor) -> bool:
    """Return whether a transform has wrapped this tensor: its own argument, or a tensor computed from one."""
    return torch._C._functorch.is_functorch_wrapped_tensor(value)


def concrete(value: Tensor) -> Tensor:
    """Return the plain tensor behind the wrappers of the transforms; with all samples, if vmap maps over it."""
    while wraps(value):
        value = torch._C._functorch.get_unwrapped(value)
    return value


def call_in_graph(name: str, *args: Any) -> Any:
    """Call graph_calls.CALLS[name], as one node of the graph that torch.compile is building."""
    from . import in_graph

    return in_graph.call(name, *args)


def transformable(
    function: Callable[..., Any], setup_context: Callable[..., Any], backward: Callable[..., Any]
) -> Callable[..., Any]:
    """Return `function` with the rules of grad and vmap."""

    class Transformable(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> Any:
            return function(*args)

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
            """Run sample by sample, so that each sample has its own of the batch's values, such as statistics."""
            results = []
            for i in range(info.batch_size):
                of_sample = [
                    a if d is None else a.select(d, i).contiguous() for a, d in zip(args, in_dims, strict=True)
                ]
                results.append(Transformable.apply(*of_sample))
            if isinstance(results[0], Tensor):
                return torch.stack(results), 0
            outputs = tuple(torch.stack(each) for each in zip(*results, strict=True))
            return outputs, (0,) * len(outputs)

    Transformable.setup_context = staticmethod(setup_context)  # type: ignore[method-assign]
    Transformable.backward = staticmethod(backward)  # type: ignore[method-assign]
    return Transformable.apply


def vjp(
    function: Callable[..., Sequence[Tensor | None]], primals: Sequence[Tensor | None], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients of the primals, from those of the outputs; on both sides, None means absent."""

    def outputs(*present: Tensor) -> tuple[Tensor, ...]:
        tensors = iter(present)
        found = function(*(None if p is None else next(tensors) for p in primals))
        return tuple(o for o, g in zip(found, grads, strict=False) if o is not None and g is not None)

    pull = torch.func.vjp(outputs, *(p for p in primals if p is not None))[1]
    gradients = iter(pull(tuple(g for g in grads if g is not None)))
    return [None if p is None else next(gradients) for p in primals]


def second_order(reference: Callable[..., tuple[Tensor | None, ...]]) -> tuple[Callable[..., None], Callable[..., Any]]:
    """Return (setup_context, backward) of an operator's backward, from a PyTorch function that computes the same."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.is_tensor = [isinstance(value, Tensor) for value in inputs]
        ctx.others = [None if isinstance(value, Tensor) else value for value in inputs]
        ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))

    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors = iter(ctx.saved_tensors)
        inputs = [next(tensors) if there else v for there, v in zip(ctx.is_tensor, ctx.others, strict=True)]
        needed = [i for i, need in enumerate(ctx.needs_input_grad) if need]

        def function(*wanted: Tensor) -> tuple[Tensor | None, ...]:
            replaced = dict(zip(needed, wanted, strict=True))
            return reference(*(replaced.get(i, value) for i, value in enumerate(inputs)))

        gradients = dict(zip(needed, vjp(function, [inputs[i] for i in needed], grads), strict=True))
        return tuple(gradients.get(i) for i in range(len(inputs)))

    return setup_context, backward
