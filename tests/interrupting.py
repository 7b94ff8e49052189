"""Ctrl-C in a program that works for minutes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def assert_hears_ctrl_c(script: str, within: float) -> None:
    """Run a script, which prints "ready" before its long call; Ctrl-C must end it within so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        error = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert time.monotonic() - began < within
    assert error.splitlines()[-1] == "KeyboardInterrupt"
