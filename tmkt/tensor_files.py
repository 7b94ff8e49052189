"""Tensors in safetensors files, written and read like `atomic_files`. Reading one runs no code of its writer."""

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import atomic_files
from .errors import DamagedError, UserError

_WRITER = "tmkt"  # key of a safetensors file's metadata


def tensors_to_bytes(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return the bytes of a safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata)


def tensors_from_bytes(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU."""
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise DamagedError(f"{name} is not a safetensors file ({' '.join(str(error).split())})") from error


def write_tensors(path: Path, tensors: dict[str, Tensor], run: str) -> None:
    """Write a safetensors file atomically; its metadata names the run and holds the digest of the tensors."""
    # One key, because safetensors writes several in random order, and a repeated run must give the same file.
    atomic_files.write(path, tensors_to_bytes(tensors, {_WRITER: f"{run} {_digest(tensors)}"}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Return the tensors of a safetensors file and the run that wrote it; None: another program did, without a digest.

    Raises:
        DamagedError: it is missing, not a safetensors file, or its content does not match its digest.
    """
    if not path.is_file():
        atomic_files.read(path)  # raises if it is not a regular file
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
        raise DamagedError(
            f"{path.name} is damaged: it is not a safetensors file ({' '.join(str(error).split())})"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it was left as it is, make it readable") from error
    if _WRITER not in about:
        return tensors, None
    run, _, digest = about[_WRITER].rpartition(" ")
    if digest != _digest(tensors):
        raise DamagedError(f"{path.name} is damaged: its tensors have not the checksum that it names")
    return tensors, run


def _digest(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        plain = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
