"""`accelerate` puts another library's model on our operators, and `restore` undoes it."""

import copy
import importlib.metadata
import sys
from collections import Counter
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn

from .fusion import disown, fused_modules, own
from .proof import proved_pairs
from .replacement import Accelerated, AcceleratedNeuron

LIBRARIES = {
    "spikingjelly.activation_based.neuron": ("spikingjelly", ("2.0.",)),
    "snntorch": ("snntorch", ("1.0.",)),
    "norse.torch": ("norse", ("1.1.",)),
    "sinabs.layers": ("sinabs", ("2.0.", "3.1.")),
}
"""Loaded module that shows a library is in use -> the library's name, also that of our file on it, and the versions
for which that file was written. In other versions the same names may mean something else."""


HALF = {
    "ours": "half inputs and autocast: our operators, in float32, which is more exact than the library's half",
    "library": "half inputs, under autocast too: left to the library",
}
"""Values of `half`, with the line of the report about float16 and bfloat16 inputs."""


@dataclass
class Report:
    """Report of what `accelerate` did to `model`; the keys are paths in it, as named_modules() gives them.

    Attributes:
        model: the accelerated model.
        replaced: modules that now run on our operators, with their class.
        fused: batch norm -> the neuron that also does its work.
        left: neurons, and batch norms before neurons, that stay unchanged, with the reason.
        unknown: loaded libraries of a version we do not know, so that none of their modules were replaced.
        half: who computes half inputs, "ours" or "library".
    """

    model: nn.Module
    replaced: dict[str, str] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    half: str = "ours"

    def __str__(self) -> str:
        counts = Counter(self.replaced.values())
        lines = [f"replaced: {number} x {name}" for name, number in counts.items()]
        lines += [HALF[self.half]] if self.replaced else []
        lines += [f"fused: {norm} + {neuron}" for norm, neuron in self.fused.items()]
        lines += [f"left alone: {path or 'the model'}: {why}" for path, why in self.left.items()]
        lines += [
            f"left alone: all of {library} {version}: not a version we know"
            for library, version in self.unknown.items()
        ]
        return "\n".join(lines or ["nothing to replace: no neuron of a library that is loaded and known"])


def loaded_libraries(report: Report) -> list[ModuleType]:
    """Return our files on the libraries that this process has imported."""
    files = []
    for module, (library, versions) in LIBRARIES.items():
        if module not in sys.modules:
            continue
        version = importlib.metadata.version(library)
        if version.startswith(versions):
            files.append(importlib.import_module(f"{__package__}.{library}"))
        else:
            report.unknown[library] = version
    return files


def accelerate(model: nn.Module, *, inplace: bool = True, fuse_batch_norm: bool = True, half: str = "ours") -> Report:
    """Put the spiking neurons of SpikingJelly, snnTorch, norse and sinabs in `model` on our operators.

    A module stays the same object, with its parameters, buffers, hooks, state and attributes; state_dict, optimisers
    and checkpoints are unaffected. Whatever cannot be served exactly runs as before. The report names the neurons,
    surrogates and options that we do not have; float64 inputs are recognised at each call. Spikes equal the library's,
    except where a rounding falls on the other side of the threshold, because we add in another order (docs/convert.md).
    On half inputs they equal the library's spikes for the same inputs in float32.

    Args:
        model: any module.
        inplace: change `model`; False changes a deep copy, `report.model`.
        fuse_batch_norm: run a batch norm and a neuron as one operator, if torch.fx has proved for a module that its
            batch norm feeds only that neuron. The module gets two forward hooks, and fuses the two while it is called.
            The batch norm itself stays unchanged: other users of its output, and other callers, get the normalised
            value. Hooks on one of the two, set now or later, keep them apart.
        half: "ours" computes float16 and bfloat16 inputs, with autocast or without, in float32 on our operators, and
            returns the dtype that the library returns; "library" leaves them to the library. On an accelerated
            model the last call counts.

    Returns:
        A report of the modules that were replaced and left, with reasons; print it.

    Raises:
        ValueError: `half` is neither "ours" nor "library".
    """
    if half not in HALF:
        raise ValueError(f"half: expected 'ours' or 'library', got {half!r}")
    model = model if inplace else copy.deepcopy(model)
    report = Report(model, half=half)
    libraries = loaded_libraries(report)
    for path, module in model.named_modules():
        for library in libraries:
            name = type(module).__name__
            stand_in = library.STAND_INS.get(type(module))
            why = (
                stand_in.problem(module) if stand_in else f"{name} has no equal here, or is a subclass that may differ"
            )
            if stand_in and why is None:
                module.__class__ = stand_in
                report.replaced[path] = name
            elif isinstance(module, library.NEURONS) and not isinstance(module, Accelerated):
                report.left[path] = why
        if isinstance(module, AcceleratedNeuron):
            module.__dict__.pop("served_dtypes", None)
            if half == "library":
                module.served_dtypes = (torch.float32,)
    if fuse_batch_norm:
        _fuse(model, report, libraries)
    return report


def _fuse(model: nn.Module, report: Report, libraries: list[ModuleType]) -> None:
    kinds = {nn.BatchNorm1d, nn.BatchNorm2d}.union(*(library.BATCH_NORMS for library in libraries))
    names = {module: path for path, module in model.named_modules()}
    fused = fused_modules(model)
    norms = {module for module in names if type(module) in kinds} - fused
    neurons: set[Any] = {module for module in names if isinstance(module, AcceleratedNeuron)} - fused
    proved: Any = proved_pairs(model, norms, neurons)
    for owner, pairs in proved.items():
        paths = {module: path for path, module in owner.named_modules()}
        fusable = []
        for norm in (module for module in names if module in pairs):
            neuron = pairs[norm]
            if (why := neuron.fusion_problem()) is not None:
                report.left[names[norm]] = why
            else:
                fusable.append((paths[norm], type(norm), paths[neuron]))
                report.fused[names[norm]] = names[neuron]
        if fusable:
            own(owner, fusable)
    if neurons:
        unproved = norms.difference(*proved.values())
        for norm in [module for module in names if module in unproved]:
            report.left[names[norm]] = "batch norm: not proved that it feeds one neuron, and nothing else"


def restore(model: nn.Module) -> nn.Module:
    """Restore the own class of every module that `accelerate` changed, in place, and return the model."""
    for module in model.modules():
        disown(module)
        if isinstance(module, Accelerated):
            for ours in ("numbers", "scalars_of_p", "served_dtypes"):
                module.__dict__.pop(ours, None)
            module.__class__ = module.replaces  # type: ignore[assignment]
    return model
