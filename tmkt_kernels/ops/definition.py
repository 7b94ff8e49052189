"""The parts of an operator's registration with torch. The module `op` of each operator's folder is a Definition."""

from collections.abc import Callable
from typing import Any, Protocol


class Definition(Protocol):
    """Schemas and functions of an operator. `backward(bwd_op, ctx, *grads)` gets its family's backward operator first.

    The Triton kernels are `forward` and `backward` of the module `triton` beside it, with the arguments of the schemas.
    `reference_backward` has the arguments and results of the backward operator, in plain PyTorch, because second-order
    gradients go through it. The other functions have the arguments of the schemas, or are those of torch.library.
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
