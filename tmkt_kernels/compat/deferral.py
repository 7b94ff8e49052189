"""Deferral of a batch norm's work to the neuron behind it.

A batch norm that defers its work returns a `Deferred` tensor. The neuron takes the batch norm's input from it, and does
the work of both. For any other code that touches the tensor, the library computes the normalised value, once.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._pytree import tree_map_only

from ..nn.batch_norm import track
from ..ops.bn_lif.functional import run as run_bn_lif
from ..ops.bn_lif.reference import BatchNorm
from ..ops.lif.recurrence import Recurrence

REMEDY = "call it without fusion: accelerate(model, fuse_batch_norm=False), or restore(model)"

Norm = nn.modules.batchnorm._BatchNorm


def _modes() -> tuple[bool, bool]:
    return torch.is_inference_mode_enabled(), torch.is_grad_enabled()


@contextlib.contextmanager
def _under(modes: tuple[bool, bool]) -> Iterator[None]:
    """Restore the inference and grad modes of the time of the deferral. Hooks on saved tensors are disabled, because
    nobody had set any at that time."""
    inference, grad = modes
    with torch.inference_mode(inference), torch.set_grad_enabled(grad), contextlib.ExitStack() as stack:
        if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept))
        yield


def _track_untold(norm: Norm, mean: Tensor, var: Tensor, count: int) -> None:
    """Update the running statistics like torch, without bumping their version: an earlier call of torch's own may have
    saved them for backward."""
    written = tuple(t for t in (norm.running_mean, norm.running_var) if t is not None and not t.is_inference())
    versions = tuple(tensor._version for tensor in written)
    track(norm, mean, var, count)
    torch._C._autograd._unsafe_set_version_counter(written, versions)


def has_hooks(module: nn.Module) -> bool:
    """Return whether hooks watch the inputs, outputs or gradients of this module."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own or _has_any_global_hook())


def library_forward(norm: Norm, *args: Any, **kwargs: Any) -> Any:
    return type(norm).forward(norm, *args, **kwargs)


class Call(Protocol):
    """The call in which a batch norm deferred its work; it records who did the work."""

    def done_by_library(self, work: "Deferral") -> None: ...
    def done_by_neuron(self, work: "Deferral") -> None: ...


class Deferral:
    """The work that a batch norm has deferred. The neuron does it, or the library once some code needs the value.

    Attributes:
        version: version of x at the deferral, which must not change; None in inference mode, where torch counts none.
        tracked: whether the running statistics include x.
        by_neuron: whether the neuron has done the work.
        result: the normalised value, once some code has needed it.
    """

    def __init__(self, call: Call, norm: Norm, neuron: "Fusable", x: Tensor) -> None:
        self.call, self.norm, self.neuron, self.x = call, norm, neuron, x
        self.version = None if x.is_inference() else x._version
        self.modes = _modes()
        self.batch_statistics = norm.training or norm.running_mean is None
        self.tracked = self.by_neuron = False
        self.result: Tensor | None = None

    def has_its_input(self) -> bool:
        return self.version is None or self.x._version == self.version

    def check_input(self) -> None:
        if not self.has_its_input():
            raise RuntimeError(
                "accelerate: the input of a fused batch norm was modified in place before its neuron was called, so "
                f"that its output is lost; {REMEDY}"
            )

    def value(self) -> Tensor:
        """Return what the batch norm would have returned, with its gradient."""
        if self.result is None:
            with _under(self.modes):
                self.result = self.normalise()
        return self.result

    def normalise(self) -> Tensor:
        """Compute the normalised value. The running statistics take x once, however often this runs."""
        self.check_input()
        norm, x = self.norm, self.x
        if not self.tracked:
            self.tracked = True
            self.call.done_by_library(self)
            value: Tensor = library_forward(norm, x)
            return value
        mean, var = (None, None) if self.batch_statistics else (norm.running_mean, norm.running_var)
        folded = x.flatten(0, 1) if channel_dim(norm) == 2 else x
        options = (mean, var, norm.weight, norm.bias, self.batch_statistics, 0.0, norm.eps)
        return nn.functional.batch_norm(folded, *options).view(x.shape)

    def fits(self, shape: torch.Size) -> bool:
        """Return whether the channels are dimension 2 of x_seq [T, B, C, ...], as the operator requires."""
        return self.x.shape == (shape if channel_dim(self.norm) == 2 else (shape[0] * shape[1], *shape[2:]))

    def run(self, x_seq: Tensor, v_init: Tensor | None, neuron: Recurrence, return_v: bool) -> tuple[Tensor, ...]:
        """Run batch norm and neuron as one operator, and update torch's running statistics."""
        norm = self.norm
        mean, var = (None, None) if self.batch_statistics else (norm.running_mean, norm.running_var)
        value = BatchNorm(norm.weight, norm.bias, mean, var, norm.eps)
        *outputs, batch_mean, batch_var = run_bn_lif(x_seq, v_init, value, neuron, return_v, "auto")
        if norm.training:
            _track_untold(norm, batch_mean, batch_var, x_seq.numel() // norm.num_features)
        self.tracked = self.by_neuron = True
        self.call.done_by_neuron(self)
        return tuple(outputs)


def channel_dim(norm: Norm) -> int:
    """Return 2 if this module itself takes [T, B, C, ...], else 1."""
    return 2 if getattr(norm, "step_mode", "s") == "m" else 1


class Deferred(Tensor):
    """A batch norm's output that is not yet computed: shape, dtype and device, but no data."""

    work: Deferral
    known: Tensor | None  # the value in this shape

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], Deferred) and args[0].work.result is None:
            if func in _DESCRIPTION:
                with torch._C.DisableTorchFunctionSubclass():
                    return func(*args, **kwargs)
            if func in _RESHAPING and (reshaped := _reshaped(func, *args, **kwargs)) is not None:
                return reshaped
        asked = args[1:2] if func is torch.autograd.grad else args[:1] if func in _ASKING_FOR_ITS_GRADIENT else ()
        tree_map_only(Deferred, _refuse_gradient, (asked, kwargs.get("inputs")))
        args, kwargs = tree_map_only(Deferred, value_of, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Serve code that bypasses `__torch_function__`, such as an autograd function or a C++ extension.
        Gradients go through `_Defer`."""
        if func._schema.is_mutable:
            raise RuntimeError(
                f"accelerate: {func} would change the output of a fused batch norm from below Python; {REMEDY}"
            )
        args, kwargs = tree_map_only(Deferred, _data_of, (args, kwargs or {}))
        return func(*args, **kwargs)


_DESCRIPTION = {
    getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_cuda")
} | {Tensor.dim, Tensor.size, Tensor.numel, Tensor.nelement, Tensor.is_floating_point, torch.numel}
_RESHAPING = {Tensor.view, Tensor.reshape, Tensor.unflatten, torch.reshape, torch.unflatten}
_ASKING_FOR_ITS_GRADIENT = {Tensor.register_hook, Tensor.retain_grad, Tensor.register_post_accumulate_grad_hook}


class _Defer(torch.autograd.Function):
    """Make a Deferred, whose gradient is that of the normalised value."""

    @staticmethod
    def forward(ctx: Any, work: Deferral, shape: Any, stride: Any, *inputs: Tensor | None) -> Deferred:
        ctx.work, ctx.inputs = work, inputs
        return _without_data(work, shape, stride)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, needed = ctx.work.value(), ctx.needs_input_grad[3:]
        wanted = [tensor for tensor, needs in zip(ctx.inputs, needed, strict=True) if needs]
        graph = {"retain_graph": True, "create_graph": torch.is_grad_enabled()}
        grads = iter(torch.autograd.grad(value, wanted, grad.reshape(value.shape), **graph))
        return None, None, None, *(next(grads) if needs else None for needs in needed)


def _without_data(work: Deferral, shape: Any, stride: Any) -> Deferred:
    made: Any = Tensor._make_wrapper_subclass(Deferred, shape, stride, dtype=work.x.dtype, device=work.x.device)
    made.work, made.known = work, None
    deferred: Deferred = made
    return deferred


def defer(work: Deferral, like: Tensor) -> Deferred:
    inputs = work.x, work.norm.weight, work.norm.bias
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs):
        made: Deferred = _Defer.apply(work, like.shape, like.stride(), *inputs)
        return made
    return _without_data(work, like.shape, like.stride())


def _reshaped(func: Callable[..., Tensor], deferred: Deferred, *args: Any, **kwargs: Any) -> Deferred | None:
    """Return a Deferred in the shape that `func` gives it; None if `func` changes more than the shape."""
    with torch._C.DisableTorchFunctionSubclass():
        meta = torch.empty_strided(deferred.shape, deferred.stride(), dtype=deferred.dtype, device="meta")
    like = func(meta, *args, **kwargs)
    return defer(deferred.work, like) if like.dtype == meta.dtype else None


def _shape(deferred: Deferred) -> torch.Size:
    with torch._C.DisableTorchFunctionSubclass():
        return deferred.shape


def value_of(deferred: Deferred) -> Tensor:
    """Return the normalised value in the shape of `deferred`, the same tensor on each call."""
    if deferred.known is None:
        value, shape = deferred.work.value(), _shape(deferred)
        with _under(deferred.work.modes):
            deferred.known = value if value.shape == shape else value.reshape(shape)
    return deferred.known


def _data_of(deferred: Deferred) -> Tensor:
    """Return the data below autograd, where a computed value has no gradient and so is not kept."""
    work = deferred.work
    value = work.normalise() if work.result is None else work.result.detach()
    return value.reshape(_shape(deferred))


def _refuse_gradient(deferred: Deferred) -> None:
    if deferred.work.by_neuron:
        raise RuntimeError(
            "accelerate: the gradient at the output of a fused batch norm is asked for, which its neuron does not "
            f"compute; {REMEDY}"
        )


def is_watched() -> bool:
    """Return whether anything would notice a missing batch norm: a mode that intercepts operators, or hooks on saved
    tensors, such as those of checkpointing, which counts them."""
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None or torch._C._len_torch_dispatch_stack():
        return True
    modes = torch.overrides._get_current_function_mode_stack()
    # torch.set_default_device is a mode too, but intercepts no values. Its module is loaded at first use.
    device = sys.modules.get("torch.utils._device")
    return any(device is None or type(mode) is not device.DeviceContext for mode in modes)


def received(x: Tensor, neuron: "Fusable") -> tuple[Tensor, Deferral | None]:
    """Return a neuron's input; or the input of its batch norm, with the work deferred to the neuron. The neuron agreed
    to that work in `serves`."""
    if type(x) is not Deferred:
        return x, None
    work = x.work
    if work.neuron is not neuron or work.tracked or work.modes != _modes() or is_watched():
        return value_of(x), None
    work.check_input()
    shape = _shape(x)
    return work.x if work.x.shape == shape else work.x.reshape(shape), work


class Fusable:
    """A neuron that can do the work of the batch norm before it."""

    def serves(self, x: Tensor) -> bool:
        """Return whether our operators compute this input exactly."""
        raise NotImplementedError

    def fusion_problem(self) -> str | None:
        """Return why this neuron, in its present state, cannot do the work of a batch norm; None if it can."""
        return None
