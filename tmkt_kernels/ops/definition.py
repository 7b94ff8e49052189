"""What each operator tells torch of itself; the module `op` of its folder is one of these."""

from collections.abc import Callable
from typing import Any, Protocol


class Definition(Protocol):
    """`backward(bwd_op, ctx, *grads)` gets the backward operator of its own family as first argument.

    Its Triton kernels are `forward` and `backward` of the module `triton` beside it, with the arguments of the schemas.
    `reference_backward` takes and gives what that operator does, in plain PyTorch, because second-order gradients go
    through it. The other functions have the arguments of the schemas, or are those of torch.library.
    """

    FORWARD_SCHEMA: str
    BACKWARD_SCHEMA: str

    @property
    def fake_forward(self) -> Callable[..., Any]: ...
    @property
    def fake_backward(self) -> Callable[..., Any]: ...
    @property
    def setup_context(self) -> Callable[..., Any]: ...
    @property
    def backward(self) -> Callable[..., Any]: ...
    @property
    def reference_backward(self) -> Callable[..., Any]: ...
