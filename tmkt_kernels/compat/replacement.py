"""Accelerated modules: the user's own objects, with a subclass that calls our operators as their class.

`accelerate` swaps only the class of a module. Parameters, buffers, hooks, state, attributes, keys in state_dict and
references to the module stay valid, methods that we do not override are the library's own, and swapping back undoes it.
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
    """Mixin of the classes that replace a library's; `replaces` is the class that `restore` puts back."""

    replaces: ClassVar[type[nn.Module]]


# Private API of torch. If a release lacks it, calls under torch.func's transforms go to our operators too.
_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


def number(module: nn.Module, name: str) -> float:
    """Return the value of a tensor with one element. On a GPU it is read only after a change, as reading waits."""
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
    """Return the result of `make` for numbers and names, or why it refuses them. Cached, as every call needs it."""
    return (_remembered.__wrapped__ if torch.compiler.is_compiling() else _remembered)(make, **keywords)


class AcceleratedNeuron(Accelerated, Fusable):
    """A neuron on `lif`, or on `bn_lif` where a batch norm before it has deferred its work (`deferral.py`).

    A subclass reports in `problem` what it cannot serve, and returns its parameters from `neuron`. Both run at every
    call, because attributes may change at any time. The library's own code runs what can no longer be served exactly.
    """

    served_dtypes: tuple[torch.dtype, ...] = KERNEL_DTYPES  # of inputs; `accelerate(half="library")` narrows it
    compiles: ClassVar[bool] = False  # whether torch.compile gets our operators; if not, the library's step as before

    @classmethod
    def problem(cls, module: Any) -> str | None:
        """Return why this module, of ours or of the class it replaces, cannot be served exactly; None if it can."""
        raise NotImplementedError

    def neuron(self) -> Recurrence:
        """Return the present parameters of the recurrence."""
        raise NotImplementedError

    def serves(self, x: Tensor) -> bool:
        """Return whether we serve x. Float64 inputs stay with the library, which computes in float64; we compute half
        inputs in float32."""
        strided = x.numel() > 0 and x.layout == torch.strided
        ours = x.dtype in self.served_dtypes and strided and not self.is_followed()
        return ours and self.problem(self) is None

    def is_followed(self) -> bool:
        """Return whether torch.jit.trace, torch.func or, for most libraries, torch.compile follows this call. The
        library's own code serves such calls."""
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
        """x_seq [T, B, ...] -> spikes, v_last and, with `return_v`, h. With `work`, x_seq is a batch norm's input.

        Spikes and h have dtype `dtype`, by default x_seq's; v_last is float32 for every half type.
        """
        neuron, dtype = self.neuron(), dtype or x_seq.dtype
        if v_init is not None and not torch.compiler.is_compiling() and torch.is_grad_enabled():
            v_init = v_init.clone() if v_init.is_inference() else v_init  # autograd would refuse to save it
        if work is not None:
            if neuron.coefficients is None and work.fits(x_seq.shape):
                return work.run(x_seq.to(dtype), v_init, neuron, return_v)
            x_seq = work.value().reshape(x_seq.shape)
        return run(x_seq.to(dtype), v_init, neuron, return_v, "auto")
