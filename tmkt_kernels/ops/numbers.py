"""Operators whose floats change from call to call inside torch.compile, such as an annealed tau.

A float of a schema is part of a compiled graph, so that each new value would compile anew, and after eight torch gives
up. If the floats are symbols of the graph, the operator therefore takes them as one float64 tensor [floats] on the CPU.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .definition import Definition


class Numbers:
    """`op` with its floats in a tensor: `tmkt::<name>_numbers(Tensor numbers, ...)`, with the others in their order."""

    def __init__(self, op: Any, fake: Callable[..., Any]) -> None:
        name, _, rest = str(op._schema).partition("(")
        arguments, _, returns = rest.partition(") -> ")
        self.is_float = [argument.startswith("float ") for argument in arguments.split(", ")]
        name += "_numbers"
        torch.library.define(name, f"(Tensor numbers, {', '.join(self.others(arguments.split(', ')))}) -> {returns}")
        torch.library.register_fake(name, lambda numbers, *others: fake(*self.joined([0.0] * len(numbers), others)))
        torch.library.impl(name, ("cpu", "cuda"), lambda numbers, *others: op(*self.joined(numbers.tolist(), others)))
        self.op = getattr(torch.ops.tmkt, name.removeprefix("tmkt::")).default

    def joined(self, floats: Any, others: Any) -> list[Any]:
        """Return all arguments of the operator."""
        floats, others = iter(floats), iter(others)
        return [next(floats if of else others) for of in self.is_float]

    def others(self, args: Any) -> list[Any]:
        """Return the arguments that are not floats."""
        return [value for value, of in zip(args, self.is_float, strict=True) if not of]

    def __call__(self, *args: Any) -> Any:
        zero = torch.zeros((), dtype=torch.float64)  # torch.compile adds to a tensor without a guard
        floats = [value for value, of in zip(args, self.is_float, strict=True) if of]
        numbers = torch.stack([zero + value for value in floats + _symbols(floats)])
        return self.op(numbers, *self.others(args))


def _symbols(floats: list[Any]) -> list[Any]:
    """Return the graph's own floats from which these are computed, as 1 + tau is from tau. They come last, where no
    operator reads them.

    Before 2.13 torch takes such a float for a constant unless it is itself added to a tensor (pytorch#182136).
    """
    if torch.__version__ >= "2.13":  # not a string comparison: torch compares its version number by number
        return []
    from torch.utils._sympy.symbol import SymT, symbol_is_type

    nodes: list[Any] = [value.node for value in floats if isinstance(value, torch.SymFloat)]
    found = {s: n.shape_env for n in nodes for s in n.expr.free_symbols if symbol_is_type(s, SymT.FLOAT)}
    return [env.create_symfloatnode(symbol, hint=None) for symbol, env in found.items()]


def register(definition: Definition, fwd_op: Any, bwd_op: Any) -> Callable[..., Any]:
    """Return a function that calls `fwd_op` in a graph, with its floats in a tensor if any of them is a symbol."""
    fwd, bwd = Numbers(fwd_op, definition.fake_forward), Numbers(bwd_op, definition.fake_backward)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.numbers, *others = inputs
        definition.setup_context(ctx, tuple(fwd.joined([0.0] * len(ctx.numbers), others)), output)

    def numbers_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad
        ctx.needs_input_grad = fwd.joined([False] * len(ctx.numbers), needs[1:])
        gradients = definition.backward(lambda *args: bwd.op(ctx.numbers, *bwd.others(args)), ctx, *grads)
        ctx.needs_input_grad = needs
        return None, *fwd.others(gradients)

    torch.library.register_autograd(fwd.op, numbers_backward, setup_context=setup)

    def call(*args: Any) -> Any:
        return fwd(*args) if any(isinstance(value, torch.SymFloat) for value in args) else fwd_op(*args)

    return call
