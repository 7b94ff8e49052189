"""What each operator tells torch of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Definition:
    """All that an operator is to torch.

    `backward(bwd_op, ctx, *grads)` gets the backward operator of its own family as first argument.
    `reference_backward` takes and gives what that operator does, in plain PyTorch, because second-order gradients go
    through it.
    """

    name: str
    forward_schema: str
    backward_schema: str
    fake_forward: Callable[..., Any]
    fake_backward: Callable[..., Any]
    setup_context: Callable[..., Any]
    backward: Callable[..., Any]
    reference_backward: Callable[..., Any]
    triton_forward: Callable[..., Any]
    triton_backward: Callable[..., Any]
