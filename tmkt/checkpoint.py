"""Checkpoints that are whole or absent, and known to be whole when they are read.

A checkpoint is a folder step-<n> with safetensors and JSON alone: reading one runs no code of whoever wrote it, and
other programs read it too. It is written under a temporary name, flushed, then renamed; its manifest holds the SHA-256
of every file, so that what a disk or a copy has damaged since is found.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import UserError
from .progress import console

TASK, OPTIMIZER, STATE, MANIFEST = "task.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


class Checkpoint(NamedTuple):
    """Weights and optimiser state as tensors by name, and the plain values of a run's state."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


class DamagedError(Exception):
    """A checkpoint is not what was written; the message says which file, and how."""


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    _write(path, text.encode())


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically."""
    _write(path, _to_bytes(weights))


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> None:
    """Write folder/step-<step>/, in the place of one of that name if there is one."""
    final = _path(folder, step)
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed while writing
    temporary.mkdir(parents=True)
    files = {
        TASK: _to_bytes(checkpoint.weights),
        OPTIMIZER: _to_bytes(checkpoint.optimizer),
        STATE: json.dumps(checkpoint.state).encode(),
    }
    files[MANIFEST] = json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in files.items()}).encode()
    for name, data in files.items():
        (temporary / name).write_bytes(data)
        _flush(temporary / name)
    _flush(temporary)
    if final.exists():
        shutil.rmtree(final)
    temporary.replace(final)
    _flush(folder)


def load_checkpoint(folder: Path, step: int) -> Checkpoint:
    """Read folder/step-<step>/, on the CPU, every file checked against the manifest.

    Raises:
        DamagedError: a file is missing, or has not the content that was written.
    """
    path = _path(folder, step)
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files = {name: (path / name).read_bytes() for name in (TASK, OPTIMIZER, STATE)}
    except OSError as error:
        raise DamagedError(f"{Path(error.filename).name} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DamagedError(f"{MANIFEST} is not JSON") from error
    for name, data in files.items():
        if not isinstance(manifest, dict) or manifest.get(name) != hashlib.sha256(data).hexdigest():
            raise DamagedError(f"{name} ({len(data)} bytes) has not the checksum that {MANIFEST} gives")
    try:
        weights, optimizer = (safetensors.torch.load(files[name]) for name in (TASK, OPTIMIZER))
        return Checkpoint(weights, optimizer, json.loads(files[STATE]))
    except (SafetensorError, ValueError) as error:  # whole, but not written by us
        raise DamagedError(f"not a safetensors file, or not JSON: {error}") from error


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; None if none was ever written. Damaged ones that are newer are said and deleted.

    Raises:
        UserError: there are checkpoints, and all are damaged.
    """
    damaged = []
    for step in reversed(steps(folder)):
        try:
            checkpoint = load_checkpoint(folder, step)
        except DamagedError as error:
            damaged.append(step)
            console.print(f"{_path(folder, step)} is damaged: {error}; looking for the one before", soft_wrap=True)
            continue
        for newer in damaged:  # the run makes them again
            shutil.rmtree(_path(folder, newer))
        return checkpoint
    if damaged:
        raise UserError(f"out: every checkpoint under {folder} is damaged; delete that folder to begin anew")
    return None


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, in order."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Delete all checkpoints but the `keep` newest and that of step `best`."""
    for step in steps(folder)[:-keep]:
        if step != best:
            shutil.rmtree(_path(folder, step))


def optimizer_tensors(optimizer: Optimizer, task: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as <kind>.<parameter>, e.g. exp_avg.model.heads.event.weight.

    Only that: learning rates and other settings come from the run's configuration.
    """
    names = [name for name, _ in task.named_parameters()]
    state = optimizer.state_dict()["state"]
    return {f"{kind}.{names[index]}": value for index, kinds in state.items() for kind, value in kinds.items()}


def restore_optimizer(optimizer: Optimizer, task: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, for an optimiser of task.parameters() in their order."""
    index = {name: i for i, (name, _) in enumerate(task.named_parameters())}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        state.setdefault(index[name], {})[kind] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def keep_records(path: Path, last_step: int) -> None:
    """Drop what a resumed run writes anew: the records of a metrics.jsonl beyond `last_step`, and the test score."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            continue
        if record["step"] <= last_step and record["kind"] != "test":
            kept.append(line + "\n")
    write_text(path, "".join(kept))


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _to_bytes(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    _flush(temporary)
    temporary.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """fsync a file or a folder, so that a rename never outlives what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
