"""Early ends of a command: Ctrl-C, SIGTERM, or the death of the process that started it."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PARENT = "TMKT_PARENT"  # the process that a command must not outlive
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Within the block, SIGINT and SIGTERM are appended to the list that it yields. The second of a kind acts at once.

    Outside the main thread nothing is recorded, because Python handles signals only there.
    """
    noted: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in map(int, (signal.SIGINT, signal.SIGTERM)):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # ignored under nohup, or not Python's
                before[number] = signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def child_environment() -> dict[str, str]:
    """Return the environment for a `python -m tmkt` that must end with this process."""
    return {**os.environ, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Have the system send SIGTERM when the parent that called `child_environment` ends, even by SIGKILL."""
    parent = os.environ.pop(_PARENT, None)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if str(os.getppid()) != parent:  # the parent ended before the call
        raise SystemExit(128 + signal.SIGTERM)
