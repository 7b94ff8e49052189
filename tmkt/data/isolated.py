"""Reading with third-party libraries, so that no file can end our process, hang it or use up its memory.

A child process (`isolated_child.py`) reads under an alarm and a memory limit. It starts with the first file that needs
it and serves all later files. If a file ends it, that file is named as damaged, and a new child starts.
"""

import atexit
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tmkt_kernels.events import DamagedRecordingError

PHYSICAL_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # bytes
MEMORY = 256 << 20  # bytes that reading a file may take, plus MEMORY_RATIO times its size; at most half of all memory
MEMORY_RATIO = 32
SECONDS = 20.0  # for reading a file, plus a second per SECOND_BYTES
SECOND_BYTES = 1 << 20


def read_arrays(
    path: Path, format: str, columns: Mapping[str, Sequence[str]]
) -> tuple[dict[str, np.ndarray], tuple[int, int] | None]:
    """Return arrays of x, y, t and p as in the file, and the sensor size (width, height) if the file states it.

    Args:
        format: one of `READERS` of isolated_child.py.
        columns: for each of x, y, t and p its possible names in the file.

    Raises:
        DamagedRecordingError: it cannot be read; the message says why, in words that follow the path.
        ModuleNotFoundError: the library that reads it is not installed.
    """
    size = path.stat().st_size
    request = {
        "format": format,
        "path": str(path.absolute()),
        "columns": {name: list(options) for name, options in columns.items()},
        "seconds": SECONDS + size / SECOND_BYTES,
        "bytes": min(MEMORY + MEMORY_RATIO * size, PHYSICAL_MEMORY // 2),
    }
    reply, arrays = _child().ask(request)
    if missing := reply.get("missing"):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
    if error := reply.get("error"):
        raise DamagedRecordingError(error)
    stated = reply["sensor_size"]
    return dict(zip(("x", "y", "t", "p"), arrays, strict=True)), (stated[0], stated[1]) if stated else None


class _Child:
    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Send a request. If the child dies, a second one tries the file, which may not have been the cause."""
        with self._lock:
            try:
                for _ in range(2):
                    with contextlib.suppress(EOFError, BrokenPipeError):
                        return self._ask(self._running(), request)
                    assert self._process is not None
                    code = self._process.wait()
                    self.stop()
                    if code == -signal.SIGALRM:
                        seconds = request["seconds"]
                        raise DamagedRecordingError(
                            f"takes more than {seconds:.0f} s to read: it is damaged; fetch it again"
                        )
                how = signal.Signals(-code).name if code < 0 else f"status {code}"
                raise DamagedRecordingError(f"crashes the library that reads it ({how}): it is damaged; fetch it again")
            except BaseException:  # also on Ctrl-C, because the rest of an answer must not be taken for the next one
                self.stop()
                raise

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self.stop()
        return self._process or self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        script = Path(__file__).with_name("isolated_child.py")
        self._process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        return self._process

    def _ask(
        self, process: "subprocess.Popen[bytes]", request: dict[str, Any]
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        (length,) = struct.unpack("<I", read_whole(process.stdout, np.empty(4, np.uint8)).tobytes())
        reply = json.loads(read_whole(process.stdout, np.empty(length, np.uint8)).tobytes())
        described = reply.get("arrays", [])
        return reply, [read_whole(process.stdout, np.empty(shape, dtype)) for dtype, shape in described]

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # the request was not read to its end
                    pipe.close()
        self._process = None


_current = _Child()


def _child() -> _Child:
    """Return this process's child. A child inherited by fork answers another process."""
    global _current
    if _current.owner != os.getpid():
        _current = _Child()
    return _current


def process_id() -> int | None:
    """Return the id of this process's child, or None if no child runs."""
    return _child().process_id


@atexit.register
def stop() -> None:
    """End the child of this process."""
    _child().stop()


def read_whole(pipe: Any, into: np.ndarray) -> np.ndarray:
    """Fill an array of any dtype from a pipe, and return it.

    Raises:
        EOFError: the pipe ends before.
    """
    view, filled = into.reshape(-1).view(np.uint8).data, 0
    while filled < len(view):
        count = pipe.readinto(view[filled:])
        if not count:
            raise EOFError
        filled += count
    return into
