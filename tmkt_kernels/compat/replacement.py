"""What an accelerated module is: the user's own object, whose class has become a subclass that calls our operators.

So parameters, buffers, hooks, state, attributes, keys in state_dict and every reference to the module stay what they
are, methods we do not override are the library's own, and giving the class back undoes it.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..backends import KERNEL_DTYPES
from ..ops.lif.functional import run
from ..ops.lif.recurrence import Recurrence
from .deferral import Deferral, Fusable


class Accelerated:
    """Mixin of the classes that stand in for a library's; `replaces` is the class that `restore` gives back."""

    replaces: ClassVar[type[nn.Module]]


# Private to torch; where a release lacks it, torch.func's transforms reach our operators.
_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


def number(module: nn.Module, name: str) -> float:
    """The value of a tensor with one element. On a GPU it is read, which waits for the GPU, only where it changed."""
    tensor: Tensor = getattr(module, name)
    if tensor.device.type == "cpu" or tensor.is_inference() or not isinstance(module, Accelerated):
        return float(tensor)
    numbers: dict[str, tuple[Tensor, int, float]] = module.__dict__.setdefault("numbers", {})
    if name not in numbers or numbers[name][0] is not tensor or numbers[name][1] != tensor._version:
        numbers[name] = tensor, tensor._version, float(tensor)
    return numbers[name][2]


@functools.lru_cache(maxsize=4096)
def _remembered(make: Callable[..., Recurrence], **keywords: Any) -> tuple[Any, str | None]:
    try:
        return make(**keywords), None
    except (TypeError, ValueError) as error:
        return None, f"our operator does not take its parameters: {error}"


def made(make: Callable[..., Recurrence], **keywords: Any) -> tuple[Any, str | None]:
    """What `make` gives for numbers and names, and why it refuses them. Asked at every call, and so remembered."""
    return (_remembered.__wrapped__ if torch.compiler.is_compiling() else _remembered)(make, **keywords)


class AcceleratedNeuron(Accelerated, Fusable):
    """A neuron on `lif`, or on `bn_lif` where a batch norm before it has put its work off (`deferral.py`).

    A subclass says what it can serve in `problem`, and gives its parameters in `neuron`. Both are asked at every call,
    for attributes may be set at any time: what can no longer be served exactly goes through the library's own code.
    """

    served_dtypes: tuple[torch.dtype, ...] = KERNEL_DTYPES  # of inputs; `accelerate(half="library")` narrows it
    compiles: ClassVar[bool] = False  # torch.compile gets our operators, or else what it got before: the library's step

    @classmethod
    def problem(cls, module: Any) -> str | None:
        """Why this module, of ours or of the class it replaces, cannot be served exactly; None if it can."""
        raise NotImplementedError

    def neuron(self) -> Recurrence:
        """The parameters of the recurrence as they are now."""
        raise NotImplementedError

    def serves(self, x: Tensor) -> bool:
        """Inputs in double stay the library's, which computes in double; half ones are ours, computed in float32."""
        strided = x.numel() > 0 and x.layout == torch.strided
        ours = x.dtype in self.served_dtypes and strided and not self.is_followed()
        return ours and self.problem(self) is None

    def is_followed(self) -> bool:
        """Whether this call is run to be written down or transformed, which takes the library's own code: by
        torch.jit.trace, torch.func or, for most libraries, torch.compile."""
        if torch.compiler.is_compiling():
            return not self.compiles
        return torch.jit.is_tracing() or _transforms_active()  # type: ignore[attr-defined]

    def run(
        self,
        x_seq: Tensor,
        v_init: Tensor | None,
        return_v: bool = False,
        dtype: torch.dtype | None = None,
        work: Deferral | None = None,
    ) -> tuple[Tensor, ...]:
        """x_seq [T, B, ...] -> spikes, v_last and, with `return_v`, h. With `work` x_seq is a batch norm's input.

        Spikes and h come in `dtype`, None for x_seq's; v_last in float32 for every half type.
        """
        neuron, dtype = self.neuron(), dtype or x_seq.dtype
        if v_init is not None and not torch.compiler.is_compiling() and torch.is_grad_enabled():
            v_init = v_init.clone() if v_init.is_inference() else v_init  # which autograd would refuse to keep
        if work is not None:
            if neuron.coefficients is None and work.fits(x_seq.shape):
                return work.run(x_seq.to(dtype), v_init, neuron, return_v)
            x_seq = work.value().reshape(x_seq.shape)
        return run(x_seq.to(dtype), v_init, neuron, return_v, "auto")
