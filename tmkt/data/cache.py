"""Frames kept on the disk: one memory-mapped .npy file for each part of a data set.

A file's name holds two hashes: of what was asked for (settings, and which recordings), and of the
state of the sources (size and time of every file, or the image simulated from). So a change of either never meets
the old file. Files appear whole or not at all: several processes may prepare the same part, and one may be killed.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from ..progress import console

FORMAT = 1  # raise it when the layout of the files changes


class Entry(NamedTuple):
    """A recording or an image: which it is (name), and what tells whether its source has changed (identity)."""

    name: str
    identity: str

    @staticmethod
    def of(path: Path, part: Any = None) -> "Entry":
        """A file, or a part of one; its size and time tell whether it has changed."""
        state = path.stat()
        return Entry(f"{path.resolve()} {part}", f"{state.st_size} {state.st_mtime_ns}")


class FrameCache:
    """Cached frames under one folder, made when first asked for."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def frames(
        self, what: str, settings: dict[str, Any], entries: Sequence[Entry], make: Iterator[np.ndarray]
    ) -> np.ndarray:
        """Frames [T, N, 2, H, W], mapped from the file (copy on write), in the order of `entries`.

        Args:
            what: names the part in what is said.
            settings: everything the frames depend on besides the recordings.
            make: gives the frames [T, 2, H, W] of each recording; used only where the file is not there.
        """
        subject = _digest([FORMAT, settings, [entry.name for entry in entries]])
        path = self.root / f"{subject}-{_digest([entry.identity for entry in entries])}.npy"
        problem = self._problem(path)
        if problem is None:
            return np.load(path, mmap_mode="c")
        stale = [old for old in self.root.glob(f"{subject}-*.npy") if old != path]
        if stale:
            problem = "the recordings have changed since it was made"
        if problem:
            console.print(f"cache {self.root}: {what}: {problem}; made anew", soft_wrap=True, highlight=False)
        self._write(path, len(entries), make, what)
        for old in stale:
            _note(old).unlink(missing_ok=True)
            old.unlink(missing_ok=True)
        return np.load(path, mmap_mode="c")

    def _problem(self, path: Path) -> str | None:
        """None: the file is there and whole. "": it is not there. Else what is wrong with it."""
        if not path.is_file():
            return ""
        try:
            note = json.loads(_note(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "its check sum is missing"
        if note["bytes"] != path.stat().st_size:
            return f"the file has {path.stat().st_size} bytes, {note['bytes']} were written"
        return None if note["crc32"] == _check_sum(path) else "the file is damaged (check sum)"

    def _write(self, path: Path, count: int, make: Iterator[np.ndarray], what: str) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        partial = path.with_suffix(f".{platform.node()}.{os.getpid()}.partial")
        written: np.memmap | None = None
        done = 0
        try:
            for done, frames in enumerate(make, 1):
                if written is None:
                    shape = (frames.shape[0], count, *frames.shape[1:])
                    written = np.lib.format.open_memmap(partial, mode="w+", dtype=frames.dtype, shape=shape)
                written[:, done - 1] = frames
            if written is None or done != count:
                raise ValueError(f"{what}: {count} recordings were announced, {done} came")
            written.flush()
            note = {"bytes": partial.stat().st_size, "crc32": _check_sum(partial), "what": what}
            side = partial.with_suffix(".note")
            side.write_text(json.dumps(note), encoding="utf-8")
            side.replace(_note(path))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what processes of this machine that were killed have left."""
        for partial in self.root.glob(f"*.{platform.node()}.*.partial"):
            process = int(partial.name.split(".")[-2])
            try:
                os.kill(process, 0)  # sends nothing; tells whether it lives
            except ProcessLookupError:
                partial.unlink(missing_ok=True)
            except PermissionError:
                pass  # it lives, and is another user's


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _check_sum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = crc32(block, value)
    return value
