"""Cache of frames on disk: one memory-mapped .npy file per part of a data set.

A file's name holds two hashes: of the request (settings and recordings), and of the state of the sources (size and time
of every file, or the image simulated from). After a change of either, the old file is not used. Files appear complete
or not at all, because several processes may prepare the same part, and one may be killed.
"""

import hashlib
import io
import json
import os
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from ..atomic_files import write_new, written
from ..progress import console

FORMAT = 1  # increase it when the layout of the files changes


class Entry(NamedTuple):
    """A recording or an image: its name, and an identity that changes when its source changes."""

    name: str
    identity: str

    @staticmethod
    def of(path: Path, part: Any = None) -> "Entry":
        """Make an entry of a file, or of a part of one; size and time identify its state."""
        state = path.stat()
        return Entry(f"{path.resolve()} {part}", f"{state.st_size} {state.st_mtime_ns}")


class FrameCache:
    """Cached frames in one folder, computed at first use."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def frames(
        self,
        what: str,
        settings: dict[str, Any],
        entries: Sequence[Entry],
        make: Iterator[np.ndarray],
        shape: tuple[int, ...],
    ) -> np.ndarray:
        """Return frames [T, N, ...], mapped from the file (copy on write), in the order of `entries`.

        Args:
            what: the part's name in messages.
            settings: everything that the frames depend on besides the recordings.
            make: yields the frames [T, ...] of each recording; used only if the file does not exist.
            shape: that of a recording's frames.

        Raises:
            UserError: the folder cannot be written, or the disk is full.
        """
        subject = _digest([FORMAT, settings, [entry.name for entry in entries]])
        path = self.root / f"{subject}-{_digest([entry.identity for entry in entries])}.npy"
        stacked = (shape[0], len(entries), *shape[1:])
        problem = self._problem(path, stacked)
        if problem is None:
            return np.load(path, mmap_mode="c")
        stale = [old for old in self.root.glob(f"{subject}-*.npy") if old != path]
        if stale:
            problem = "the recordings have changed since it was made"
        if problem:
            console.print(f"cache {self.root}: {what}: {problem}; made anew", soft_wrap=True, highlight=False)
        self._write(path, stacked, make, what)
        for old in stale:
            _note(old).unlink(missing_ok=True)
            old.unlink(missing_ok=True)
        return np.load(path, mmap_mode="c")

    def _problem(self, path: Path, shape: tuple[int, ...]) -> str | None:
        """Return None if the file exists and is whole, "" if it does not exist, else its fault."""
        if not path.is_file():
            return ""
        if not _note(path).is_file():
            return "its check sum is missing"
        try:
            note = json.loads(_note(path).read_text(encoding="utf-8"))
            written, check_sum = int(note["bytes"]), int(note["crc32"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError, OverflowError):
            return "its check sum cannot be read"
        if written != path.stat().st_size:
            return f"the file has {path.stat().st_size} bytes, {written} were written"
        if check_sum != _check_sum(path):
            return "the file is damaged (check sum)"
        try:
            found = np.load(path, mmap_mode="r").shape
        except Exception as error:  # no array, though its checksum holds, so another program wrote it
            return f"the file is no array of frames ({error})"
        return None if found == shape else f"the file holds {found}, expected {shape}"

    def _write(self, path: Path, shape: tuple[int, ...], make: Iterator[np.ndarray], what: str) -> None:
        with written(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
        partial = path.with_suffix(f".{platform.node()}.{os.getpid()}.partial")
        side = partial.with_suffix(".note")
        done = 0
        try:
            with written(partial):
                partial.unlink(missing_ok=True)
                file = partial.open("xb", buffering=0)
            # Plain writes, because a memory mapping on a full disk kills the process without a message.
            with file:
                for done, frames in enumerate(make, 1):
                    if frames.shape != (shape[0], *shape[2:]):
                        raise ValueError(f"{what}: expected frames {(shape[0], *shape[2:])}, got {frames.shape}")
                    with written(partial):
                        if done == 1:
                            header = _header(frames.dtype, shape)
                            _write_at(file, 0, header)
                        for t, frame in enumerate(np.ascontiguousarray(frames)):
                            _write_at(file, len(header) + (t * shape[1] + done - 1) * frame.nbytes, frame.tobytes())
            if done != shape[1]:
                raise ValueError(f"{what}: {shape[1]} recordings were announced, {done} came")
            note = {"bytes": partial.stat().st_size, "crc32": _check_sum(partial), "what": what}
            with written(path):
                side.unlink(missing_ok=True)
                write_new(side, json.dumps(note).encode())
                side.replace(_note(path))
                partial.replace(path)
        finally:
            side.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove files left by killed processes of this machine."""
        pattern = re.compile(rf"\w+-\w+\.{re.escape(platform.node())}\.(\d{{1,9}})\.(?:partial|note)")
        for left in self.root.iterdir():
            match = pattern.fullmatch(left.name)
            if match is None:
                continue
            try:
                os.kill(int(match[1]), 0)  # sends nothing; tests whether the process lives
            except ProcessLookupError:
                left.unlink(missing_ok=True)
            except PermissionError:
                pass  # it lives and belongs to another user


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return file.getvalue()


def _write_at(file: io.FileIO, offset: int, data: bytes) -> None:
    """Write all of `data`. A full disk takes what fits and reports the error only at the next call."""
    rest = memoryview(data)
    file.seek(offset)
    while rest:
        rest = rest[file.write(rest) :]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _check_sum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = crc32(block, value)
    return value
