"""Scalars for TensorBoard, written immediately.

torch's SummaryWriter writes them in a separate thread, which dies with a traceback if the disk is full.
"""

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from .. import atomic_files


class Curves:
    """One file of events in `folder`, for steps from `first_step` on, which TensorBoard drops from older files."""

    def __init__(self, folder: Path, first_step: int) -> None:
        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self.path = folder / name
        with atomic_files.written(self.path):
            self._writer = RecordWriter(atomic_files.Appender(self.path, os.O_EXCL))
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        self._write(Event(wall_time=now, step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write the values of one step, by tag."""
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def close(self) -> None:
        """Close the file. Nothing is lost without it."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        with atomic_files.written(self.path):
            self._writer.write(event.SerializeToString())
