"""What an accelerated module is: the user's own object, whose class has become a subclass that calls our operators.

So parameters, buffers, hooks, state, attributes, keys in state_dict and every reference to the module stay what they
are, methods we do not override are the library's own, and giving the class back undoes it.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._batch_norm import track
from .._dispatch import KERNEL_DTYPES
from ..bn_lif import run as run_bn_lif
from ..lif import Neuron, run


class Accelerated:
    """Mixin of the classes that stand in for a library's; `replaces` is the class that `restore` gives back."""

    replaces: ClassVar[type[nn.Module]]


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody looks at what goes through this module."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def number(module: nn.Module, name: str) -> float:
    """The value of a tensor with one element. On a GPU it is read, which waits for the GPU, only where it changed."""
    tensor: Tensor = getattr(module, name)
    if tensor.device.type == "cpu" or not isinstance(module, Accelerated):
        return float(tensor)
    numbers: dict[str, tuple[Tensor, int, float]] = module.__dict__.setdefault("numbers", {})
    if name not in numbers or numbers[name][0] is not tensor or numbers[name][1] != tensor._version:
        numbers[name] = tensor, tensor._version, float(tensor)
    return numbers[name][2]


class AcceleratedNeuron(Accelerated):
    """A neuron on `lif`, or on `bn_lif` where a batch norm before it has been proved to feed it alone.

    A subclass says what it can serve in `problem`, and gives its parameters in `neuron`. Both are asked at every call,
    for attributes may be set at any time: what can no longer be served exactly goes through the library's own code.
    """

    norm: "AcceleratedNorm | None" = None
    raw: Tensor | None = None  # the batch norm's input on its way here
    served_dtypes: tuple[torch.dtype, ...] = KERNEL_DTYPES  # of inputs; `accelerate(half="library")` narrows it

    @classmethod
    def problem(cls, module: Any) -> str | None:
        """Why this module, of ours or of the class it replaces, cannot be served exactly; None if it can."""
        raise NotImplementedError

    def neuron(self) -> Neuron:
        """The parameters of the recurrence as they are now."""
        raise NotImplementedError

    def fusion_problem(self) -> str | None:
        """Why this neuron cannot do the work of a batch norm before it; None if it can."""
        return None

    def serves(self, x: Tensor) -> bool:
        """Inputs in double stay the library's, which computes in double; half ones are ours, computed in float32."""
        if self.raw is not None:  # decided, when the batch norm left its work to us
            return True
        strided = x.numel() > 0 and x.layout == torch.strided
        return x.dtype in self.served_dtypes and strided and self.problem(self) is None

    def run(
        self, x_seq: Tensor, v_init: Tensor | None, return_v: bool = False, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        """x_seq [T, B, ...] -> spikes, v_last and, with `return_v`, h; through the batch norm if that left it to us.

        Spikes and h come in `dtype`, None for x_seq's; v_last in float32 for every half type.
        """
        norm, raw, self.raw = self.norm, self.raw, None
        neuron, dtype = self.neuron(), dtype or x_seq.dtype
        if norm is None or raw is None:
            return run(x_seq.to(dtype), v_init, neuron, return_v, "auto")
        if not torch.compiler.is_compiling() and x_seq.data_ptr() != raw.data_ptr():
            raise RuntimeError(
                "accelerate: this neuron does the work of the batch norm before it, but something else than the batch "
                "norm's output reached it: one of them was called alone; accelerate with fuse_batch_norm=False"
            )
        folded = (x_seq.shape[0] * x_seq.shape[1], *x_seq.shape[2:])
        if raw.shape != (x_seq.shape if norm.channel_dim() == 2 else folded):  # its channels are not our dimension 2
            current = norm.normalise(raw).reshape(x_seq.shape)
            return run(current.to(dtype), v_init, neuron, return_v, "auto")
        return norm.run(x_seq.to(dtype), v_init, neuron, return_v)

    def normalised(self, x: Tensor) -> Tensor:
        """x for the library's own code: what the batch norm left to us is done here."""
        norm, raw, self.raw = self.norm, self.raw, None
        return x if norm is None or raw is None else norm.normalise(raw).reshape(x.shape)


class AcceleratedNorm(Accelerated, nn.modules.batchnorm._BatchNorm):
    """A batch norm that leaves its work to the neuron it feeds: it returns its input, and tells the neuron so."""

    target: AcceleratedNeuron
    dims: ClassVar[tuple[int, ...]]
    """The dimensions that torch's layer takes."""

    def forward(self, x: Tensor) -> Any:
        self.target.raw = None
        seen = has_hooks(self) or has_hooks(self.target)  # type: ignore[arg-type]
        if seen or not self.serves(x) or not self.target.serves(x):
            return self.normalise(x)
        self.target.raw = x
        return x

    def normalise(self, x: Tensor) -> Tensor:
        """The library's own forward."""
        return super().forward(x)

    def serves(self, x: Tensor) -> bool:
        """An x that torch would refuse is left to torch, with its message."""
        kept = [t for t in (self.weight, self.bias, self.running_mean, self.running_var) if t is not None]
        dim = self.channel_dim()
        fits = x.dim() - (dim - 1) in self.dims and x.shape[dim] == self.num_features and x.numel() > self.num_features
        return fits and all(t.dtype == torch.float32 and t.device == x.device for t in kept)

    def channel_dim(self) -> int:
        """2 where this module itself takes [T, B, C, ...], else 1."""
        return 2 if getattr(self, "step_mode", "s") == "m" else 1

    def _replicate_for_data_parallel(self) -> Any:
        raise RuntimeError(
            "accelerate: nn.DataParallel would part a batch norm from the neuron that does its work; "
            "use DistributedDataParallel, or accelerate with fuse_batch_norm=False"
        )

    def run(self, x_seq: Tensor, v_init: Tensor | None, neuron: Neuron, return_v: bool) -> tuple[Tensor, ...]:
        """Batch norm and neuron as one operator, and torch's running statistics."""
        batch = self.training or self.running_mean is None
        mean, var = (None, None) if batch else (self.running_mean, self.running_var)
        *outputs, batch_mean, batch_var = run_bn_lif(
            x_seq, self.weight, self.bias, v_init, mean, var, self.eps, neuron[0], return_v, "auto"
        )
        if self.training:
            track(self, batch_mean, batch_var, x_seq.numel() // self.num_features)
        return tuple(outputs)


class AcceleratedBatchNorm1d(AcceleratedNorm, nn.BatchNorm1d):
    replaces, dims = nn.BatchNorm1d, (2, 3)


class AcceleratedBatchNorm2d(AcceleratedNorm, nn.BatchNorm2d):
    replaces, dims = nn.BatchNorm2d, (4,)
