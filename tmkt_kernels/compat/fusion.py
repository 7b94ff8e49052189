"""Fusion of a batch norm and the neuron it feeds into one operator, during calls of the module that holds both.

`accelerate` records on that module, the owner, which of its batch norms feeds which of its neurons, and gives it two
hooks. The first lets the batch norms defer their work (`deferral.py`) when a call begins, the second ends that when
the call ends. A batch norm keeps its class, and outside the owner's calls it behaves as before.
"""

import functools
import sys
import threading
import weakref
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .deferral import (
    Deferral,
    Deferred,
    Fusable,
    Norm,
    channel_dim,
    defer,
    has_hooks,
    is_watched,
    library_forward,
    value_of,
)

Path = tuple[str, ...]


class _Call:
    """A running call of an owner, with its frame."""

    def __init__(self, owner: nn.Module, frame: FrameType) -> None:
        self.owner, self.frame = owner, frame
        self.neurons: dict[nn.Module, Fusable] = {}  # by batch norm that may defer its work
        self.put_off: set[Deferral] = set()
        self.by_neurons: list[weakref.ref[Deferral]] = []
        self.seen = False  # whether anything but a neuron may hold a Deferred

    def is_over(self) -> bool:
        """Return whether the call has ended without its forward hook, as after Ctrl-C."""
        try:
            self.frame.clear()
        except RuntimeError:  # raised for a frame that is still executing
            return False
        return True

    def done_by_library(self, work: Deferral) -> None:
        self.put_off.discard(work)
        self.seen = True

    def done_by_neuron(self, work: Deferral) -> None:
        """Note that a neuron did the work, by a weak reference, which does not keep its tensors alive."""
        self.put_off.discard(work)
        self.by_neurons.append(weakref.ref(work))

    def end(self) -> None:
        """Do the deferred work that nothing has done, while parameters and statistics are still those of the call.

        Work that a neuron has done also gets its value if something still holds it, for example an attribute.
        """
        for norm in self.neurons:
            if _is_ours(norm):
                norm.__dict__.pop("forward", None)  # another thread may do the same
        for work in tuple(self.put_off):
            work.value()
        for work in filter(None, (ref() for ref in self.by_neurons)):
            if work.has_its_input():
                work.value()


class _Calls(threading.local):
    """The running calls of owners in this thread, innermost last."""

    def __init__(self) -> None:
        self.open: list[_Call] = []

    def begin(self, call: _Call) -> None:
        self._end_interrupted()
        self.open.append(call)

    def of(self, norm: nn.Module) -> _Call | None:
        """Return the innermost call in which this batch norm may defer its work. Its earlier deferred work is done
        first, because its statistics must take batches in order."""
        self._end_interrupted()
        for work in [work for call in self.open for work in call.put_off if work.norm is norm]:
            work.value()
        return next((call for call in reversed(self.open) if norm in call.neurons), None)

    def end(self, owner: nn.Module) -> bool:
        """End this owner's call; return whether any code may still hold a Deferred."""
        call = next((call for call in reversed(self.open) if call.owner is owner), None)
        if call is None:
            return False
        self.open.remove(call)
        call.end()
        return call.seen

    def _end_interrupted(self) -> None:
        while self.open and self.open[-1].is_over():
            self.open.pop().end()


_calls = _Calls()


def _is_ours(norm: nn.Module) -> bool:
    """Return whether this batch norm's forward is currently `_forward`."""
    return getattr(norm.__dict__.get("forward"), "func", None) is _forward


def _modules(owner: nn.Module, path: Path) -> list[Any]:
    """Return the modules on the path from `owner` to the module at `path`, which is last; empty if there is none."""
    found = [owner]
    for name in path:
        if name not in found[-1]._modules or (child := found[-1]._modules[name]) is None:
            return []
        found.append(child)
    return found[1:]


def _may_fuse(way: list[nn.Module]) -> bool:
    """Return whether no module on the path is compiled, which could not take a Deferred, or has hooks."""
    return bool(way) and not any(has_hooks(module) or module._compiled_call_impl is not None for module in way)


def _begin(owner: Any, args: Any) -> None:
    """Forward pre-hook of an owner. Nothing is deferred under torch.compile or torch.jit.trace."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return
    call = _Call(owner, sys._getframe(1))
    for norm_path, kind, neuron_path in owner.fused_pairs:
        ways = _modules(owner, norm_path), _modules(owner, neuron_path)
        if not all(map(_may_fuse, ways)):
            continue
        norm, neuron = (way[-1] for way in ways)
        own_forward = "forward" in norm.__dict__ and not _is_ours(norm)
        if type(norm) is kind and isinstance(neuron, Fusable) and not own_forward:
            call.neurons[norm] = neuron
            norm.__dict__["forward"] = functools.partial(_forward, norm)
    _calls.begin(call)


def _end(owner: nn.Module, args: Any, output: Any) -> Any:
    """Forward hook of an owner, which also runs after an exception. The owner returns plain tensors, except for an
    output whose work a neuron has done. That output stays a Deferred, which raises if its gradient is requested."""
    if torch.compiler.is_compiling() or not _calls.end(owner):
        return None
    return tree_map_only(Deferred, lambda d: d if d.work.by_neuron else value_of(d), output)


def _forward(norm: Norm, *args: Any, **kwargs: Any) -> Any:
    """The forward of a batch norm during its owner's call: defer the work if nothing watches, otherwise do it."""
    call = None if torch.compiler.is_compiling() else _calls.of(norm)
    x = args[0] if len(args) == 1 and not kwargs else None
    if call is None or type(x) is not Tensor or is_watched() or not _serves(norm, x):
        return library_forward(norm, *args, **kwargs)
    neuron = call.neurons[norm]
    if not neuron.serves(x) or neuron.fusion_problem() is not None:
        return library_forward(norm, x)
    work = Deferral(call, norm, neuron, x)
    call.put_off.add(work)
    return defer(work, x)


def _serves(norm: Norm, x: Tensor) -> bool:
    """Return whether the operator serves x. It leaves an x that torch would refuse to torch and its error message."""
    tracked = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if any(t is None for t in tracked) and (norm.track_running_stats or any(t is not None for t in tracked)):
        return False
    kept = [t for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var) if t is not None]
    dim = channel_dim(norm)
    dims = (4,) if isinstance(norm, nn.BatchNorm2d) else (2, 3)
    fits = x.dim() - (dim - 1) in dims and x.shape[dim] == norm.num_features and x.numel() > norm.num_features
    return fits and all(t.dtype == torch.float32 and t.device == x.device for t in kept)


def own(owner: Any, pairs: list[tuple[str, type, str]]) -> None:
    """Let `owner` fuse pairs of batch norm and neuron in its calls; a pair is both paths and the batch norm's class."""
    known = owner.__dict__.get("fused_pairs", [])
    disown(owner)
    owner.__dict__["fused_pairs"] = known + [(tuple(n.split(".")), kind, tuple(m.split("."))) for n, kind, m in pairs]
    owner.register_forward_pre_hook(_begin)
    owner.register_forward_hook(_end, always_call=True)


def disown(owner: nn.Module) -> None:
    """Undo `own`."""
    owner.__dict__.pop("fused_pairs", None)
    for hooks, ours in ((owner._forward_pre_hooks, _begin), (owner._forward_hooks, _end)):
        for key in [key for key, hook in hooks.items() if hook is ours]:
            del hooks[key]
            owner._forward_hooks_always_called.pop(key, None)


def fused_modules(model: nn.Module) -> set[nn.Module]:
    """Return the batch norms and neurons that `model` and its modules fuse."""
    owners = [(owner, pair) for owner in model.modules() for pair in getattr(owner, "fused_pairs", ())]
    return {module for owner, (n, _, m) in owners for path in (n, m) for module in _modules(owner, path)[-1:]}
