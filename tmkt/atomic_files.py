"""Reading and writing of whole files.

A run's folder may come from a stranger, be on a full or failing disk, or have been edited. A file is therefore read in
its expected form, or reading raises `DamagedError`. A file is written completely or not at all, never through a link,
and a failed write raises a `UserError` that names the file. `tensor_files` adds tensors.
"""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import DamagedError, UserError

TEXT_LIMIT = 1 << 28  # bytes of a JSON or YAML file, far above what a run writes
_REMEDIES = {
    errno.ENOSPC: "free space on that disk, then give the same command again",
    errno.EDQUOT: "free space in your quota, then give the same command again",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f), then give the same command again",
    errno.ELOOP: "it is a link, and a run writes through none; remove it",
}


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Within the block, an OSError becomes a UserError that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "put that right, or choose another folder")
        raise UserError(f"{path}: cannot be written ({error.strerror}); {remedy}") from error


def make_folder(root: Path, *parts: str) -> Path:
    """Return the folder root/part/..., made if missing. Links below `root` are refused, as they may lead anywhere."""
    with written(root):
        root.mkdir(parents=True, exist_ok=True)
    folder = root
    for part in parts:
        folder = folder / part
        if folder.is_symlink():
            raise UserError(f"{folder}: is a link, and a run writes through none; remove it, or choose another out=")
        with written(folder):
            folder.mkdir(exist_ok=True)
    return folder


def write(path: Path, data: bytes) -> None:
    """Write a file atomically, so that after a crash it has its old or its new content."""
    temporary = path.with_name(f".{path.name}.tmp")
    with written(path), gone_after_failure(temporary):
        temporary.unlink(missing_ok=True)  # from a killed process, or planted
        write_new(temporary, data)
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)


@contextmanager
def gone_after_failure(temporary: Path) -> Iterator[None]:
    """If the block fails, delete what it has written under `temporary`, because the disk may be full."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            remove(temporary)
        raise


def remove(path: Path) -> None:
    """Delete a folder and its contents, a file, or a link but not its target; do nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet, neither as an old file nor through a link of that name. Raises OSError."""
    with Appender(path, os.O_EXCL) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write(path, text.encode())


def append(path: Path, text: str) -> None:
    """Append text to a file."""
    with written(path), Appender(path) as file:
        file.write(text.encode())


class Appender:
    """A file open for appending, created if missing; never a link, a device or a file with a second name."""

    def __init__(self, path: Path, flags: int = 0) -> None:
        flags |= os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # no wait for a pipe's reader
        self.descriptor = os.open(path, flags, 0o666)
        state = os.fstat(self.descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            self.close()
            raise UserError(f"{path}: is a device or has a second name elsewhere (a hard link); remove it")

    def write(self, data: bytes) -> None:
        """Append all of `data`. A full disk takes what fits and reports the error only at the next call."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]

    def flush(self) -> None:
        """Do nothing, because this process buffers nothing."""

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> "Appender":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def flush(path: Path) -> None:
    """fsync a file or a folder, so that a rename never survives a crash without the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path, limit: int = TEXT_LIMIT) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises:
        DamagedError: it is missing, a folder, a device, or too large.
        UserError: it exists but cannot be read (permissions, a failing disk), so that its content is unknown.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise DamagedError(f"{path.name} is no regular file")
        if state.st_size > limit:
            raise DamagedError(f"{path.name} has {state.st_size} bytes, at most {limit} were expected")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedError(f"{path.name} is missing") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DamagedError(f"{path.name} is a link to itself") from error
        raise UserError(f"{path}: cannot be read ({error.strerror}); it was left as it is, make it readable") from error


def read_text(path: Path) -> str:
    """Like `read`, for UTF-8 text."""
    try:
        return read(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path.name} is no UTF-8 text") from error


def read_object(path: Path) -> dict[str, Any]:
    """Like `read`, for a file that holds one JSON object."""
    return parse_object(read(path), path.name)


def parse_object(data: bytes | str, name: str) -> dict[str, Any]:
    """Parse `data` as a JSON object; the error calls it `name`."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # ValueError: of JSON, of UTF-8, or of a number with too many digits
        raise DamagedError(f"{name} is not JSON") from error
    if not isinstance(value, dict):
        raise DamagedError(f"{name} is no JSON object")
    return value


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one per line. Other lines, such as one being written, are skipped."""
    records = []
    for line in read(path).splitlines():
        try:
            records.append(parse_object(line, path.name))
        except DamagedError:
            continue
    return records
