"""Checkpoints that are whole or absent: written under a temporary name, flushed, then renamed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    _flush(temporary)
    temporary.replace(path)
    _flush(path.parent)


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, temporary)
    _flush(temporary)
    temporary.replace(path)
    _flush(path.parent)


def save_checkpoint(folder: Path, step: int, weights: dict[str, Tensor], state: dict[str, Any], keep: int) -> None:
    """Write folder/step-<step>/ with task.safetensors and state.pt, then drop all but the `keep` newest.

    Args:
        state: optimiser and scheduler states and plain numbers: what torch.load(weights_only=True) reads.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed while writing
    temporary.mkdir(parents=True)
    save_file({name: t.detach().cpu().contiguous() for name, t in weights.items()}, temporary / "task.safetensors")
    torch.save(state, temporary / "state.pt")
    for path in (*temporary.iterdir(), temporary):
        _flush(path)
    temporary.replace(final)
    _flush(folder)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*"))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, state) of one checkpoint folder, on the CPU; nothing is unpickled but tensors and plain values."""
    state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    return load_file(path / "task.safetensors"), state


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


def _flush(path: Path) -> None:
    """fsync a file or a folder, so that a rename never outlives what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
