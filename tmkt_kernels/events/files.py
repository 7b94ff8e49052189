"""Recordings as files: decoders of the recorded formats, and writers."""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..ops.arguments import checked_size
from .arrays import EVENT_DTYPE, as_events, compiled


class DamagedRecordingError(ValueError):
    """The file exists, but is not a whole recording; the message names the file and its fault."""


class RecordedEvents(NamedTuple):
    """events [N] of `EVENT_DTYPE`; sensor_size (width, height) in pixels where the file states it."""

    events: np.ndarray
    sensor_size: tuple[int, int] | None = None


def read_bin(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a recording in the 5-byte format of N-MNIST and N-Caltech101 (Orchard et al. 2015, arXiv 1507.07629).

    Each record is x, y, then 1 bit of polarity and 23 bits of time in us, big endian. A record with
    y = 240 is no event but a time-stamp overflow marker: all later times grow by 2^13 us. Events
    are the same as from `tonic.io.read_mnist_file`, except that tonic's clock wraps at 2^32 us.

    Returns:
        [N] array of `EVENT_DTYPE`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedRecordingError: it has 0 bytes, ends within a record, or its time steps back.
    """
    decoder = compiled()
    with _named(path):
        records = np.fromfile(path, np.uint8)
        if records.size == 0 or records.size % 5:
            got = f"{records.size} bytes, which is no multiple of 5" if records.size else "a file of 0 bytes"
            raise ValueError(
                f"expected 5 bytes an event, got {got}: it is cut off or of another format; fetch it again"
            )
        return _decoded(decoder.decode_bin, records)


def read_dat(path: str | os.PathLike[str]) -> RecordedEvents:
    """Read a recording in Prophesee's DAT format, version 2: 8 bytes per event.

    The 32 bits of time wrap at 2^32 us: a time that falls by 2^31 us or more has wrapped.

    For the order of events and the errors, see `read_raw`.
    """
    decoder = compiled()
    with _named(path):
        data, header, start = _read_with_header(path, _PROPHESEE_LINE)
        if (version := re.search(r"^% version (\d+)", header, re.IGNORECASE | re.MULTILINE)) and version[1] != "2":
            raise ValueError(f"is of DAT version {version[1]}, and only 2 is read; convert it with Prophesee's tools")
        if len(data) < start + 2:
            raise ValueError("ends within its header: it is cut off; fetch it again")
        kind, width = int(data[start]), int(data[start + 1])
        if kind not in _DAT_CHANGES or width != 8:
            raise ValueError(
                f"holds records of type {kind} and {width} bytes; expected events, type 0 or 12, of 8 bytes: "
                "it is another kind of DAT file, or damaged"
            )
        records = _whole(data[start + 2 :], 8)
        return RecordedEvents(_decoded(decoder.decode_dat, records), _stated_size(header))


def read_raw(path: str | os.PathLike[str]) -> RecordedEvents:
    """Read a recording in Prophesee's RAW format: EVT2, EVT2.1 or EVT3, as its header says.

    Triggers and vendors' words are skipped. Events before the first time word are dropped, as in Prophesee's decoder,
    because their time is unknown. A time that falls by half the range of its bits or more has wrapped. EVT2.1 has the
    low half of a word first, unless the header says `endianness=legacy`.

    Cameras write some events a few microseconds late. They are sorted by time if they are at most 10 ms late; events of
    the same time keep their order.

    Returns:
        The events [N] of `EVENT_DTYPE`, and the sensor's size if the header states it.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedRecordingError: it has 0 bytes, is cut off, has another format, or its time steps back by more
            than 10 ms; the message names the file.
    """
    decoder = compiled()
    with _named(path):
        data, header, start = _read_with_header(path, _PROPHESEE_LINE)
        stated = re.findall(r"^% (?:evt (\d\.\d)|format (\w+))", header, re.IGNORECASE | re.MULTILINE)
        versions = {("EVT" + evt.replace(".0", "").replace(".", "") if evt else name.upper()) for evt, name in stated}
        if len(versions) != 1 or not versions <= set(_RAW_WORD_BYTES):
            raise ValueError(
                f"states {' and '.join(sorted(versions)) or 'no format'} in its header; expected one of "
                "EVT2, EVT2.1 and EVT3: convert it to one of them"
            )
        (version,) = versions
        words = _whole(data[start:], _RAW_WORD_BYTES[version])
        if version == "EVT21":
            legacy = re.search(r"\bendianness=legacy\b", header) is not None
            events = _decoded(decoder.decode_evt21, words, high_half_first=legacy)
        else:
            events = _decoded(decoder.decode_evt2 if version == "EVT2" else decoder.decode_evt3, words)
        return RecordedEvents(events, _stated_size(header))


def read_aedat(path: str | os.PathLike[str]) -> RecordedEvents:
    """Read a recording in AEDAT 2.0 (jAER) or AEDAT 3.1 (cAER, DVS128 Gesture), as its first line says.

    AEDAT 2.0 does not state the layout of its addresses, which depends on the camera. Newer files name the camera in
    their header (`# AEChip:`). Without a name it is a DVS128, as in CIFAR10-DVS and MNIST-DVS:

    - DVS128: x = 127 - bits 1 to 7, y = bits 8 to 14, brighter where bit 0 is 0, as the authors of MNIST-DVS read it.
    - DAVIS: x = width - 1 - bits 12 to 21, y = height - 1 - bits 22 to 30, brighter where bit 11 is 1, as tonic reads
      it. Samples of frames and of the inertial sensor are skipped.

    For the order of events and the errors, see `read_raw`.
    """
    decoder = compiled()
    with _named(path):
        data, header, start = _read_with_header(path, _AEDAT_LINE)
        version = header.partition("\n")[0].removeprefix("#!AER-DAT").strip()
        if version == "2.0":
            name = re.search(r"^# ?AEChip: *(?:.*\.)?(\w+)", header, re.MULTILINE)
            camera = _camera(name[1] if name else "DVS128")
            if camera is None:
                raise ValueError(f"is of a camera that is not known, {name and name[1]}; expected DVS128 or DAVIS")
            sensor_size, davis = camera
            records = _whole(data[start:], 8)
            events = _decoded(decoder.decode_aedat2, records, sensor_size=sensor_size, davis=davis)
            return RecordedEvents(events, sensor_size)
        if version == "3.1":
            encoding = re.search(r"^#Format: *(\S+)", header, re.MULTILINE)
            if not header.endswith("#!END-HEADER"):
                raise ValueError("ends within its header: it is cut off; fetch it again")
            if encoding is None or encoding[1] != "RAW":
                raise ValueError(f"holds packets of format {encoding and encoding[1]}; only RAW is read")
            source = re.search(r"^#Source \d+: *(\w+)", header, re.MULTILINE)
            camera = _camera(source[1]) if source else None
            return RecordedEvents(_decoded(decoder.decode_aedat3, data[start:]), camera and camera[0])
        raise ValueError(f"is AEDAT {version}; this function reads 2.0 and 3.1")


def write_bin(path: str | os.PathLike[str], events: np.ndarray) -> None:
    """Write a recording that `read_bin` reads back unchanged. The file appears complete or not at all.

    Overflow markers are inserted where times pass 2^23 us.

    Args:
        path: an existing file is replaced.
        events: [N] structured array, fields x, y, t, p, as for `to_frames`.

    Raises:
        ValueError: no events, because the file would have 0 bytes, like a failed download; or an
            event that the format cannot hold: x or y outside 0..255, y = 240, a time outside
            0..2^32 - 1 us or before the previous one.
    """
    raw = as_events(events).view(np.uint8)
    if raw.size == 0:
        raise ValueError("events: expected at least one event, got none; the format has no empty recording")
    _write_whole(path, compiled().encode_bin(raw))


def write_npz(path: str | os.PathLike[str], events: np.ndarray, sensor_size: tuple[int, int]) -> None:
    """Write a recording of any sensor, compressed, with the sensor's size. The file appears complete or not at all.

    An .npz of two arrays, `events` [N] of `EVENT_DTYPE` and `sensor_size` [2]; `np.load(path)["events"]` reads it.

    Args:
        path: ends with .npz; an existing file is replaced.
        events: [N] structured array, fields x, y, t, p, as for `to_frames`.
        sensor_size: (width, height) in pixels.

    Raises:
        ValueError: another ending, no events, an event outside the sensor, or time that steps back.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"path: expected a name that ends with .npz, got {os.fspath(path)!r}")
    size = checked_size("sensor_size", sensor_size)
    content = io.BytesIO()
    np.savez_compressed(content, events=_recording(events, size), sensor_size=np.array(size))
    _write_whole(path, content.getbuffer())


def write_evt3(path: str | os.PathLike[str], events: np.ndarray, sensor_size: tuple[int, int]) -> None:
    """Write a recording in Prophesee's EVT3 format, with the sensor's size, that `read_raw` reads back unchanged.

    Events take 2 to 6 bytes each, without vectors of pixels. As a camera does, the file has a word for each 4,096 us
    from 0 on, so that a reader can count the wraps of the time, after 2^24 us. It appears complete or not at all.

    Args:
        path: usually ends with .raw; an existing file is replaced.
        events: [N] structured array, fields x, y, t, p, as for `to_frames`.
        sensor_size: (width, height) in pixels, 2048 x 2048 at most.

    Raises:
        ValueError: a larger sensor, no events, an event outside the sensor, or a time outside 0..2^32 - 1 us or before
            the previous one.
    """
    width, height = checked_size("sensor_size", sensor_size)
    if max(width, height) > _EVT3_SIDE:
        raise ValueError(
            f"sensor_size: expected {_EVT3_SIDE} x {_EVT3_SIDE} at most, got {width} x {height}; "
            "write_npz takes sensors of any size"
        )
    events = _recording(events, (width, height))
    for i in (0, len(events) - 1):
        if not 0 <= events["t"][i] < 2**32:
            raise ValueError(f"event {i}: expected a time from 0 to 2^32 - 1 us, got {events['t'][i]}")
    header = f"% evt 3.0\n% format EVT3;height={height};width={width}\n% geometry {width}x{height}\n% end\n"
    _write_whole(path, header.encode() + _evt3_words(events).tobytes())


def _recording(events: np.ndarray, sensor_size: tuple[int, int]) -> np.ndarray:
    """Return the events as `EVENT_DTYPE`; raise ValueError if they are no recording of this sensor."""
    events, (width, height) = as_events(events), sensor_size
    if len(events) == 0:
        raise ValueError("events: expected at least one event, got none")
    x, y, t = events["x"], events["y"], events["t"]
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    if outside.any():
        i = int(outside.argmax())
        raise ValueError(f"event {i}: x = {x[i]}, y = {y[i]} lies beyond the sensor of {width} x {height}")
    if (back := t[1:] < t[:-1]).any():
        i = int(back.argmax()) + 1
        raise ValueError(f"event {i}: time runs backwards, from {t[i - 1]} to {t[i]} us; sort by t first")
    return events


def _evt3_words(events: np.ndarray) -> np.ndarray:
    """Return the words of events in order of time. Those of one event: high time, if new, low time, row, column."""
    x, y, t, on = events["x"].astype("<u2"), events["y"].astype("<u2"), events["t"], events["p"].astype("<u2")
    new_time, new_row = np.diff(t, prepend=-1) != 0, np.diff(events["y"], prepend=-1) != 0
    at_x = (np.diff(t >> 12, prepend=-1) + new_time + new_row + 1).cumsum() - 1
    at_y, at_low = (at_x - 1)[new_row], (at_x - 1 - new_row)[new_time]
    words = np.empty(at_x[-1] + 1, "<u2")
    words[at_x] = _EVT3_X | on << 11 | x
    words[at_y] = _EVT3_Y | y[new_row]
    words[at_low] = _EVT3_TIME_LOW | t[new_time] & 0xFFF
    is_high = np.ones(len(words), np.bool_)
    is_high[at_x] = is_high[at_y] = is_high[at_low] = False
    words[is_high] = _EVT3_TIME_HIGH | np.arange(is_high.sum()) & 0xFFF  # one for each 4,096 us
    return words


def _write_whole(path: str | os.PathLike[str], content: Any) -> None:
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in every error about it."""
    try:
        yield
    except ValueError as error:
        raise DamagedRecordingError(f"{os.fspath(path)}: {error}") from None


def _read_with_header(path: str | os.PathLike[str], line: re.Pattern[bytes]) -> tuple[np.ndarray, str, int]:
    """Return all bytes of a file, the lines of text at its start, and the offset after them."""
    data = np.fromfile(path, np.uint8)
    if data.size == 0:
        raise ValueError("has 0 bytes; fetch it again")
    view, start, lines = data.data, 0, []
    while found := line.match(view, start):
        start = found.end()
        lines.append(found[1].decode("latin-1").rstrip())
        if not found[2]:
            raise ValueError("ends within its header: it is cut off; fetch it again")
        if lines[-1] in _LAST_LINES:
            break
    if not lines:
        raise ValueError("has no header; expected lines of text at its start: it is of another format, or damaged")
    return data, "\n".join(lines), start


# A line of text: its content, and its end, which is missing if the file ends within the line.
_PROPHESEE_LINE = re.compile(rb"(% [^\0-\x08\x0a-\x1f]*)(\r?\n|\Z)")
_AEDAT_LINE = re.compile(rb"(#[^\0-\x08\x0a-\x1f]*)(\r?\n|\Z)")
_LAST_LINES = {"% end", "#!END-HEADER", "#End Of ASCII Header"}

_DAT_CHANGES = (0, 12)  # types of DAT records that are pixel events
_RAW_WORD_BYTES = {"EVT2": 4, "EVT21": 8, "EVT3": 2}
_EVT3_Y, _EVT3_X, _EVT3_TIME_LOW, _EVT3_TIME_HIGH = 0x0000, 0x2000, 0x6000, 0x8000  # types of its words
_EVT3_SIDE = 2048  # range of an address of 11 bits
_CAMERAS = {  # by prefix of the name: size, and whether addresses are those of a DAVIS
    "dvs128": ((128, 128), False),
    "davis128": ((128, 128), True),
    "davis208": ((208, 192), True),
    "davis240": ((240, 180), True),
    "davis346": ((346, 260), True),
    "davis640": ((640, 480), True),
}


def _camera(name: str) -> tuple[tuple[int, int], bool] | None:
    return next((camera for start, camera in _CAMERAS.items() if name.lower().startswith(start)), None)


def _stated_size(header: str) -> tuple[int, int] | None:
    """Return (width, height) from `geometry 640x480`, `height=480;width=640` or `Width 640`, `Height 480`."""
    if pair := re.search(r"geometry[ :]+(\d+)x(\d+)", header, re.IGNORECASE):
        return int(pair[1]), int(pair[2])
    sides = [re.search(rf"\b{side}[ =]+(\d+)", header, re.IGNORECASE) for side in ("width", "height")]
    return (int(sides[0][1]), int(sides[1][1])) if sides[0] and sides[1] else None


def _whole(records: np.ndarray, width: int) -> np.ndarray:
    if left := len(records) % width:
        raise ValueError(f"ends {left} bytes into a record of {width}: it is cut off; fetch it again")
    return records


def _decoded(decode: Callable[..., np.ndarray], records: np.ndarray, **layout: Any) -> np.ndarray:
    try:
        return decode(records, **layout).view(EVENT_DTYPE)
    except ValueError as error:
        raise ValueError(f"{error}; the file is damaged or of another format: fetch it again") from None
