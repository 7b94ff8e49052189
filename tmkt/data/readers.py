"""Reading event recordings from the files of cameras and data sets, which are recognised by their first bytes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

from tmkt_kernels import events as ev
from tmkt_kernels.events import DamagedRecordingError, RecordedEvents

from .isolated import PHYSICAL_MEMORY, read_arrays

READER_VERSION = 2  # part of every cache key; increase it when a reader returns other events for the same file

COLUMNS_FILE = "columns.yaml"
TEXT = (".csv", ".txt")  # recordings only if `columns.yaml` says so, because folders also hold notes
MEMORY_FOR_A_BYTE = 5  # the file itself, and the usual events: 13 bytes for records of 4 and more
UNITS = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1e-3}  # in microseconds


@dataclass(frozen=True)
class Columns:
    """Names of x, y, t and p in a file of arrays, and the unit of t.

    x, y, t, p: name of a field, an array, a column or an HDF5 data set (its path), or the number of a column, from 0
    on; None for the usual name. unit: one of `UNITS`; None if the file must hold whole microseconds.
    """

    x: str | int | None = None
    y: str | int | None = None
    t: str | int | None = None
    p: str | int | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in UNITS:
            raise ValueError(f"unit: expected one of {', '.join(UNITS)}, got {self.unit!r}")

    def names(self, defaults: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        stated = {name: getattr(self, name) for name in defaults}
        return {name: defaults[name] if stated[name] is None else (str(stated[name]),) for name in defaults}


def read_recording(path: str | Path, columns: Columns | None = None) -> RecordedEvents:
    """Read one recording, in any format of `READERS`.

    Its first bytes determine the format, whatever its name. Only formats without a mark of their own (`.bin`, text) are
    recognised by extension.

    Args:
        columns: for files of arrays; None takes them from `columns.yaml`, in the file's folder or the nearest one above
            it, or uses the usual names.

    Raises:
        DamagedRecordingError: it has 0 bytes, is cut off, holds no events, or has an unknown format; the message
            names the file.
        ModuleNotFoundError: the library that reads it is not installed.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size == 0:
            raise DamagedRecordingError("has 0 bytes; fetch it again")
        if MEMORY_FOR_A_BYTE * size > PHYSICAL_MEMORY:
            raise DamagedRecordingError(
                f"is of {size / 2**30:.1f} GB, more than memory can hold decoded; cut it in parts"
            )
        recorded = _format_of(path)(path, columns)
        if len(recorded.events) == 0:
            raise DamagedRecordingError("holds no events; fetch it again")
    except MemoryError:
        raise DamagedRecordingError(f"{path}: takes more memory to read than there is") from None
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DamagedRecordingError(f"{path}: {reason}") from error
    return recorded


def read_shared(path: Path) -> RecordedEvents:
    """Like `read_recording`, for a file of several recordings read in a row; it is kept until the next file."""
    return _read_unchanged(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_unchanged(path: Path, modified: int) -> RecordedEvents:
    return read_recording(path)


Reader = Callable[[Path, Columns | None], RecordedEvents]

NAMES = {"x": ("x",), "y": ("y",), "t": ("t", "ts"), "p": ("p",)}
HDF5_NAMES = {name: (name, f"{name}s") for name in ("x", "y", "t", "p")}


def _own(read: Callable[[Path], RecordedEvents]) -> Reader:
    return lambda path, columns: read(path)


def _read_bin(path: Path) -> RecordedEvents:
    return RecordedEvents(ev.read_bin(path))


def _foreign(format: str, *, names: Mapping[str, tuple[str, ...]] = NAMES, states_unit: bool = True) -> Reader:
    """Reader of arrays by another library. `states_unit`: whole times are microseconds by convention, unless stated."""

    def read(path: Path, columns: Columns | None) -> RecordedEvents:
        columns = columns or _columns_beside(path)
        found, sensor_size = read_arrays(path, format, columns.names(names))
        if columns.unit is None and not states_unit:
            raise DamagedRecordingError(f"does not say the unit of its times; {_SAY_UNIT}")
        return RecordedEvents(_from_columns(found, columns.unit), sensor_size)

    return read


_SAY_UNIT = f"say it in {COLUMNS_FILE} beside the recordings, e.g. `unit: us`, with one of {', '.join(UNITS)}"

_bin, _dat, _raw, _aedat = _own(_read_bin), _own(ev.read_dat), _own(ev.read_raw), _own(ev.read_aedat)
_aedat4, _npz, _mat = _foreign("aedat4"), _foreign("npz"), _foreign("mat")
_npy, _text = _foreign("npy"), _foreign("text", states_unit=False)
_hdf5 = _foreign("hdf5", names=HDF5_NAMES)

READERS: dict[str, Reader] = {
    ".bin": _bin,
    ".aedat4": _aedat4,
    ".aedat": _aedat,
    ".dat": _dat,
    ".raw": _raw,
    ".npy": _npy,
    ".npz": _npz,
    ".mat": _mat,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    **dict.fromkeys(TEXT, _text),
}
"""Reader of each extension, for content without a mark."""

_MARKS: list[tuple[re.Pattern[bytes], Reader | str]] = [  # at the start of a file; or why the format is not read
    (re.compile(rb"#!AER-DAT4"), _aedat4),
    (re.compile(rb"#!AER-DAT"), _aedat),
    (re.compile(rb"(% [ -~\t]*\r?\n)*% (evt|format) ", re.IGNORECASE), _raw),
    (re.compile(rb"% Data file containing"), _dat),
    (re.compile(rb"\x93NUMPY"), _npy),
    (re.compile(rb"PK\x03\x04"), _npz),
    (re.compile(rb"\x89HDF\r\n\x1a\n"), _hdf5),
    (re.compile(rb"MATLAB 7\.3 MAT-file"), _hdf5),
    (re.compile(rb"MATLAB 5\.0 MAT-file"), _mat),
    (re.compile(rb"Event Stream"), "is an Event Stream (.es) file, which is not read; convert it to .npz"),
    (re.compile(rb"#ROSBAG"), "is a ROS bag, which is not read; convert it to .npz"),
    (re.compile(rb"\x1f\x8b\x08|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!"), "is compressed; unpack it first"),
]
_MARK_BYTES = 4096  # a RAW header names its format within a page


def _format_of(path: Path) -> Reader:
    with path.open("rb") as file:
        start = file.read(_MARK_BYTES)
    for mark, reader in _MARKS:
        if mark.match(start):
            if isinstance(reader, str):
                raise DamagedRecordingError(reader)
            return reader
    if path.suffix.lower() not in READERS:
        raise DamagedRecordingError(f"is no recording; expected one of {', '.join(READERS)}")
    return READERS[path.suffix.lower()]


def columns_file(folder: Path) -> Path | None:
    """Return the nearest `columns.yaml`, in the folder or one above it."""
    folder = folder.absolute()
    return next((f for place in (folder, *folder.parents) if (f := place / COLUMNS_FILE).is_file()), None)


def _columns_beside(path: Path) -> Columns:
    file = columns_file(path.parent)
    return _load_columns(file, file.stat().st_mtime_ns) if file else Columns()


@lru_cache(maxsize=64)
def _load_columns(path: Path, modified: int) -> Columns:
    known = [field.name for field in fields(Columns)]
    try:
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(stated, dict) or not set(stated) <= set(known):
            raise ValueError(f"expected lines such as `t: 0`, of {', '.join(known)}; got {stated!r:.80}")
        return Columns(**stated)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DamagedRecordingError(f"{path} cannot be used ({' '.join(str(error).split())})") from error


def _from_columns(columns: Mapping[str, np.ndarray], unit: str | None) -> np.ndarray:
    """Convert arrays x, y, t and p of one length to `EVENT_DTYPE`; whole floats and p of -1 and +1 are accepted."""
    arrays = {name: _one_dimension(name, values) for name, values in columns.items()}
    lengths = {len(values) for values in arrays.values()}
    if len(lengths) > 1:
        raise DamagedRecordingError(f"holds x, y, t and p of different lengths, {sorted(lengths)}; fetch it again")
    values = {name: _pixels(name, _whole(name, arrays[name])) for name in ("x", "y")}
    values["t"] = _microseconds(arrays["t"], unit)
    values["p"] = _polarity(_whole("p", arrays["p"]))
    table = np.empty(lengths.pop(), [(name, value.dtype) for name, value in values.items()])
    for name, value in values.items():
        table[name] = value
    return ev.as_events(table)


def _one_dimension(name: str, values: np.ndarray) -> np.ndarray:
    """Flatten MATLAB's vectors, which are matrices of one row or column."""
    if values.ndim == 0 or values.size != max(values.shape):
        shape = list(values.shape)
        raise DamagedRecordingError(f"{name}: expected one whole number an event, got {values.dtype} {shape}")
    return values.reshape(-1)


def _whole(name: str, values: np.ndarray, hint: str = "") -> np.ndarray:
    """Convert to integers, without rounding or wrapping."""
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        odd = ~((values == np.floor(values)) & (np.abs(values) < 2.0**53))  # also NaN and infinity
        if odd.any():
            i = int(odd.argmax())
            raise DamagedRecordingError(
                f"event {i}: {name}: expected one whole number an event, got {values[i]} ({values.dtype}){hint}"
            )
        return values.astype(np.int64)
    if values.dtype == np.uint64 and len(values) and values.max() >= 2**63:
        i = int(values.argmax())
        raise DamagedRecordingError(f"event {i}: {name} = {values[i]} is 2^63 or more; the field is damaged")
    return values


def _pixels(name: str, values: np.ndarray) -> np.ndarray:
    if (negative := values < 0).any():
        i = int(negative.argmax())
        raise DamagedRecordingError(f"event {i}: {name} = {values[i]}; expected pixels from 0 on")
    return values


def _microseconds(values: np.ndarray, unit: str | None) -> np.ndarray:
    """Convert times to whole microseconds. With a unit, integers are rounded down, and fractions to the nearest."""
    if unit is None:
        return _whole("t", values, f": of microseconds; where t has another unit, {_SAY_UNIT}")
    factor = UNITS[unit]
    with np.errstate(over="ignore", invalid="ignore"):
        odd = ~(np.abs(values.astype(np.float64)) * factor < 2.0**62)
    if odd.any():
        i = int(odd.argmax())
        raise DamagedRecordingError(f"event {i}: t = {values[i]} {unit} is no time, or {unit} is not its unit")
    if values.dtype.kind == "f":
        return np.rint(values.astype(np.float64) * factor).astype(np.int64)
    whole = values.astype(np.int64)
    return whole // 1000 if unit == "ns" else whole * int(factor)


def _polarity(values: np.ndarray) -> np.ndarray:
    """Return 0 and 1, from 0 and 1 or from -1 and +1."""
    if values.dtype.kind == "b":
        return values
    low = -1 if (values == -1).any() else 0
    odd = (values != low) & (values != 1)
    if odd.any():
        i = int(odd.argmax())
        expected = "p from 0 to 1" if low == 0 else "p of -1 and +1, since -1 is among them"
        raise DamagedRecordingError(f"event {i}: expected {expected}, got {values[i]}")
    return values == 1
