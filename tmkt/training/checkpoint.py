"""Atomic, verified checkpoints: one is written completely or not at all, and its SHA-256 sums are checked on loading.

A checkpoint is a folder step-<n> with only safetensors and JSON, so that reading it runs no code of its writer, and
other programs can read it. It is written under a temporary name, flushed, then renamed. Its manifest holds the SHA-256
of every file, which reveals damage by a disk or a copy. A damaged checkpoint is put aside rather than deleted.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import atomic_files, tensor_files
from ..errors import DamagedError, UserError
from ..progress import say

TASK, OPTIMIZER, STATE, MANIFEST = "task.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


class Checkpoint(NamedTuple):
    """Weights and optimiser state as tensors by name, and a run's state as plain values."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run, in folders step-<n> in `path`. Other files there are left alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Write step-<step>/, which replaces an existing one.

        Raises:
            UserError: it cannot be written; earlier checkpoints are unchanged.
        """
        final = self._of(step)
        temporary = self.path / f".{final.name}.tmp"
        content = {
            TASK: tensor_files.tensors_to_bytes(checkpoint.weights),
            OPTIMIZER: tensor_files.tensors_to_bytes(checkpoint.optimizer),
            STATE: json.dumps(checkpoint.state).encode(),
        }
        manifest = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        sizes = {name: len(data) for name, data in content.items()}
        content[MANIFEST] = json.dumps({**manifest, "bytes": sizes}).encode()
        atomic_files.make_folder(self.path.parent, self.path.name)
        with atomic_files.written(final), atomic_files.gone_after_failure(temporary):
            atomic_files.remove(temporary)  # left by a run that was killed while writing
            temporary.mkdir()
            for name, data in content.items():
                atomic_files.write_new(temporary / name, data)
                atomic_files.flush(temporary / name)
            atomic_files.flush(temporary)
            atomic_files.remove(final)
            temporary.replace(final)
            atomic_files.flush(self.path)

    def load(self, step: int) -> Checkpoint:
        """Read step-<step>/, on the CPU, with every file checked against the manifest.

        Raises:
            DamagedError: a file is missing, or differs from what was written.
            UserError: a file cannot be read, so that its content is unknown.
        """
        path = self._of(step)
        manifest = atomic_files.read_object(path / MANIFEST)
        sizes, content = manifest.get("bytes"), {}
        for name in (TASK, OPTIMIZER, STATE):
            size = sizes.get(name) if isinstance(sizes, dict) else None
            if type(size) is not int:
                raise DamagedError(f"{MANIFEST} does not give the size of {name}")
            data = content[name] = atomic_files.read(path / name, size)
            if len(data) != size or manifest.get(name) != hashlib.sha256(data).hexdigest():
                raise DamagedError(f"{name} ({len(data)} bytes) has not the checksum that {MANIFEST} gives")
        weights, optimizer = (tensor_files.tensors_from_bytes(content[name], name) for name in (TASK, OPTIMIZER))
        state = atomic_files.parse_object(content[STATE], STATE)
        if state.get("step") != step:
            raise DamagedError(f"{STATE} is of step {state.get('step')!r}, its folder is named {path.name}")
        return Checkpoint(weights, optimizer, state)

    def newest(self, check: Callable[[Checkpoint], None] = lambda _: None) -> Checkpoint | None:
        """Return the newest whole checkpoint; None if none was ever written.

        Newer ones that are damaged are reported, and renamed to <name>.damaged once a whole one is found.

        Args:
            check: raises DamagedError for a checkpoint whose content does not fit the run.

        Raises:
            UserError: there are checkpoints, and all are damaged; or one cannot be read.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self.load(step)
                check(checkpoint)
            except DamagedError as error:
                damaged.append(step)
                say(f"{self._of(step)} is damaged: {error}; looking for the one before")
                continue
            for newer in damaged:
                self._put_aside(newer)
            return checkpoint
        if damaged:
            raise UserError(f"out: every checkpoint under {self.path} is damaged; delete that folder to begin anew")
        return None

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order."""
        names = (re.fullmatch(r"step-(\d{8,18})", path.name, re.ASCII) for path in self.path.glob("step-*"))
        return sorted(step for match in names if match for step in [int(match[1])] if match[0] == self._of(step).name)

    def prune(self, keep: int, best: int | None) -> None:
        """Delete all but the `keep` newest and that of step `best`."""
        for step in self.steps()[:-keep]:
            if step != best:
                with atomic_files.written(self._of(step)):
                    atomic_files.remove(self._of(step))

    def _of(self, step: int) -> Path:
        return self.path / f"step-{step:08d}"

    def _put_aside(self, step: int) -> None:
        path = self._of(step)
        aside = path.with_name(f"{path.name}.damaged")
        with atomic_files.written(aside):
            atomic_files.remove(aside)
            path.rename(aside)
        say(f"{path} was renamed to {aside.name}; the run makes it again")


def trained_parameters(task: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that the optimiser has, by name and in its order."""
    return {name: parameter for name, parameter in task.named_parameters() if parameter.requires_grad}


def optimizer_tensors(optimizer: Optimizer, task: nn.Module) -> dict[str, Tensor]:
    """Return the optimiser's state as <kind>.<parameter>, e.g. exp_avg.model.heads.event.weight.

    Learning rates and other settings are not included; they come from the run's configuration.
    """
    names = list(trained_parameters(task))
    state = optimizer.state_dict()["state"]
    return {f"{kind}.{names[index]}": value for index, kinds in state.items() for kind, value in kinds.items()}


def check_tensors(found: dict[str, Tensor], expected: Mapping[str, Tensor], file: str) -> None:
    """Raise DamagedError unless tensors have the names, shapes and types of those that are expected."""
    for name in sorted(found.keys() ^ expected.keys()):
        raise DamagedError(f"{file} {'lacks' if name in expected else 'holds an unknown'} {name}")
    for name, tensor in expected.items():
        if (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype):
            have, want = (f"{t.dtype} {list(t.shape)}" for t in (found[name], tensor))
            raise DamagedError(f"{file}: {name} is {have}, expected {want}")


def check_moments(found: dict[str, Tensor], task: nn.Module, count: object) -> None:
    """Like `check_tensors`, for the result of `optimizer_tensors`: `count` tensors of AdamW for parameters of `task`.

    A parameter without a part in the loss has none.
    """
    if len(found) != count:
        raise DamagedError(f"{OPTIMIZER} holds {len(found)} tensors, {STATE} says {count}")
    step = torch.tensor(0.0)
    possible = {
        f"{kind}.{name}": step if kind == "step" else parameter
        for name, parameter in trained_parameters(task).items()
        for kind in ("step", "exp_avg", "exp_avg_sq")
    }
    check_tensors(found, {name: possible[name] for name in found if name in possible}, OPTIMIZER)


def restore_optimizer(optimizer: Optimizer, task: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Restore the result of `optimizer_tensors`, for an optimiser of `trained_parameters(task)`."""
    index = {name: i for i, name in enumerate(trained_parameters(task))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        state.setdefault(index[name], {})[kind] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
