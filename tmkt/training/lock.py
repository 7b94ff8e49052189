"""One process at a time in a folder."""

import time
from pathlib import Path

from filelock import FileLock, Timeout

from .. import atomic_files
from ..errors import UserError
from ..progress import say


class FolderLock:
    """Held by one process. The system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._lock, self._inode = FileLock(self.path), -1

    def acquire(self) -> bool:
        """Whether the folder is ours now; False: another process has it."""
        if self.path.is_symlink():
            raise UserError(f"{self.path}: is a link, and a run writes through none; remove it")
        with atomic_files.written(self.path):
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                return False
            self._inode = self.path.stat().st_ino
        return True

    def wait(self, text: str, every: float = 0.5) -> None:
        """Acquire it, saying `text` once where that takes a while."""
        announced = False
        while not self.acquire():
            if not announced:
                say(text)
            announced = True
            time.sleep(every)

    def check(self) -> None:
        """Make sure that the folder is ours still: a lock file that was deleted by hand would let in a second process.

        Raises:
            UserError: it has let one in.
        """
        try:
            unchanged = self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            unchanged = False
        if unchanged:
            return
        self.release()
        if not self.acquire():
            raise UserError(
                f"{self.path}: was deleted, and another process has begun in this folder since; this one stops, so "
                "that they do not write over each other"
            )

    def release(self) -> None:
        """Let others in."""
        self._lock.release()
