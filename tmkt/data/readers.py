"""Event recordings from the files that cameras and data sets write: one reader an extension."""

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tmkt_kernels import events as ev
from tmkt_kernels.events import DamagedRecordingError

READER_VERSION = 1  # part of every cache key: raise it where a reader gives other events for the same file


class RecordedEvents(NamedTuple):
    """events [N] of `EVENT_DTYPE`; sensor_size (width, height) where the file's header states it."""

    events: np.ndarray
    sensor_size: tuple[int, int] | None = None


def read_recording(path: str | Path) -> RecordedEvents:
    """Read one recording by its extension, one of `READERS`.

    Raises:
        DamagedRecordingError: it has 0 bytes, is cut off, holds no events or is not what its extension says; the
            message names the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DamagedRecordingError(f"{path}: is no recording; expected one of {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise DamagedRecordingError(f"{path}: has 0 bytes; fetch it again")
    try:
        recorded = READERS[suffix](path)
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DamagedRecordingError(f"{path}: {reason}") from error
    if len(recorded.events) == 0:
        raise DamagedRecordingError(f"{path}: holds no events; fetch it again")
    return recorded


def _read_bin(path: Path) -> RecordedEvents:
    """The 5-byte format of N-MNIST and N-Caltech101, which states no sensor."""
    return RecordedEvents(ev.read_bin(path))


def _read_aedat4(path: Path) -> RecordedEvents:
    """The first event stream of an AEDAT 4.0 file (iniVation)."""
    import aedat

    try:
        decoder = aedat.Decoder(path)
        streams = {n: s for n, s in decoder.id_to_stream().items() if s["type"] == "events"}
        if not streams:
            raise DamagedRecordingError("holds no event stream")
        first = min(streams)
        packets = [packet["events"] for packet in decoder if packet["stream_id"] == first]
    except RuntimeError as error:  # the decoder's one error, for a file cut off or of another format
        raise DamagedRecordingError(f"is cut off or no AEDAT 4.0 file ({error}); fetch it again") from error
    names = ("x", "y", "t", "p")
    columns: dict[str, np.ndarray] = {
        name: np.concatenate([packet[name] for packet in packets]) if packets else np.empty(0, np.int64)
        for name in names
    }
    return RecordedEvents(_from_columns(columns), (streams[first]["width"], streams[first]["height"]))


def _read_dat(path: Path) -> RecordedEvents:
    """Prophesee DAT, 8 bytes an event."""
    header, start = _header(path)
    return RecordedEvents(_decode("dat", path, start + 2, 8), _stated_size(header))


def _read_raw(path: Path) -> RecordedEvents:
    """Prophesee RAW: EVT2 (4 bytes a word) or EVT3 (2 bytes), as the header says."""
    header, start = _header(path)
    version = re.search(r"evt ?(\d\.\d)|format evt(\d+)", header, re.IGNORECASE)
    number = (version[1] or version[2]) if version else None
    if number not in {"2", "2.0", "3", "3.0"}:
        raise DamagedRecordingError("states neither EVT2 nor EVT3 in its header; convert it to one of them")
    encoding, word = ("evt2", 4) if number[0] == "2" else ("evt3", 2)
    return RecordedEvents(_decode(encoding, path, start, word), _stated_size(header))


def _read_numpy(path: Path) -> RecordedEvents:
    """A structured array with the fields x, y, t (or ts) and p, or an .npz of arrays with those names."""
    try:
        loaded = np.load(path)  # never unpickles
        if isinstance(loaded, np.ndarray):
            columns = {name: loaded[name] for name in loaded.dtype.names or ()}
        else:
            with loaded:
                columns = {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DamagedRecordingError(f"is cut off or no array of events ({reason}); fetch it again") from error
    return RecordedEvents(_from_columns(columns))


def _read_mat(path: Path) -> RecordedEvents:
    """MATLAB arrays x, y, ts and p, as CEP-DVS has them."""
    import scipy.io

    try:
        # Those of CEP-DVS do not end as the format asks; loaders of the set all read them without that check.
        loaded = scipy.io.loadmat(path, verify_compressed_data_integrity=False)
    except Exception as error:  # loadmat answers a damaged file with whatever its parser stumbles over
        raise DamagedRecordingError(f"is cut off or no MATLAB file ({error}); fetch it again") from error
    return RecordedEvents(_from_columns({name: np.ravel(loaded[name]) for name in loaded if name[0] != "_"}))


READERS: dict[str, Callable[[Path], RecordedEvents]] = {
    ".bin": _read_bin,
    ".aedat4": _read_aedat4,
    ".dat": _read_dat,
    ".raw": _read_raw,
    ".npy": _read_numpy,
    ".npz": _read_numpy,
    ".mat": _read_mat,
}


def _header(path: Path) -> tuple[str, int]:
    """The lines `% ...` at the start of a Prophesee file, and where the data begins."""
    lines, start = [], 0
    with path.open("rb") as file:
        while (line := file.readline(4096)).startswith(b"% "):
            lines.append(line.decode("latin-1").strip())
            start = file.tell()
            if lines[-1] == "% end":
                break
    if not lines:
        raise DamagedRecordingError("has no Prophesee header (lines that begin with '% '); fetch it again")
    return "\n".join(lines), start


def _stated_size(header: str) -> tuple[int, int] | None:
    """(width, height) from `geometry 640x480`, `height=480;width=640` or `Width 640`, `Height 480`."""
    if pair := re.search(r"geometry[ :]+(\d+)x(\d+)", header, re.IGNORECASE):
        return int(pair[1]), int(pair[2])
    sides = [re.search(rf"\b{side}[ =]+(\d+)", header, re.IGNORECASE) for side in ("width", "height")]
    return (int(sides[0][1]), int(sides[1][1])) if sides[0] and sides[1] else None


def _decode(encoding: str, path: Path, start: int, word: int) -> np.ndarray:
    """Events by expelliarmus, which itself ignores a file that ends within a word of `word` bytes."""
    from expelliarmus import Wizard

    left = (path.stat().st_size - start) % word
    if left:
        raise DamagedRecordingError(f"ends {left} bytes into a record of {word}: it is cut off; fetch it again")
    events = Wizard(encoding=encoding).read(path)
    if events is None:
        raise DamagedRecordingError(f"cannot be decoded as {encoding.upper()}; fetch it again")
    return ev.as_events(events)


def _from_columns(columns: Mapping[str, Any]) -> np.ndarray:
    """Arrays x, y, t (or ts) and p of one length as `EVENT_DTYPE`; whole floats and p of -1 and +1 are understood."""
    named = {"t" if name == "ts" else name: np.asarray(values) for name, values in columns.items()}
    if missing := [name for name in ("x", "y", "t", "p") if name not in named]:
        raise DamagedRecordingError(f"lacks the field(s) {', '.join(missing)}; expected x, y, t and p")
    fields = {name: _whole(name, named[name]) for name in ("x", "y", "t", "p")}
    lengths = {len(values) for values in fields.values()}
    if len(lengths) > 1:
        raise DamagedRecordingError(f"holds x, y, t and p of different lengths, {sorted(lengths)}; fetch it again")
    if (fields["p"] == -1).any():
        fields["p"] = np.where(fields["p"] == -1, 0, fields["p"])
    table = np.empty(lengths.pop(), [(name, values.dtype) for name, values in fields.items()])
    for name, values in fields.items():
        table[name] = values
    return ev.as_events(table)


def _whole(name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 1 or (values.dtype.kind == "f" and not (values == np.floor(values)).all()):
        raise DamagedRecordingError(f"{name}: expected one whole number an event, got {values.dtype} {values.shape}")
    if values.dtype.kind == "f":
        return values.astype(np.int64)
    return values.astype(np.int64) if values.dtype == np.uint64 else values
