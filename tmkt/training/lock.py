"""Lock of a folder, for one process at a time."""

import time
from pathlib import Path

from filelock import FileLock, Timeout

from .. import atomic_files
from ..errors import UserError
from ..progress import say


class FolderLock:
    """Lock held by one process. The system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"
        self._lock, self._inode = FileLock(self.path), -1

    def acquire(self) -> bool:
        """Return whether this process now has the folder; False if another process has it."""
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
        """Acquire the lock, printing `text` once if that takes a while."""
        announced = False
        while not self.acquire():
            if not announced:
                say(text)
            announced = True
            time.sleep(every)

    def check(self) -> None:
        """Check that this process still has the folder: deleting the lock file by hand would admit a second process.

        Raises:
            UserError: a second process has been admitted.
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
        """Release the lock."""
        self._lock.release()
