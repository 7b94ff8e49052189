"""Recorded formats, written and read by the layout of their words, one at a time, without any code of csrc/.

`events` are tuples (x, y, t, on). Encoders make the bytes after a header; `HEADERS` has a header for each format.
"""

import random
import struct
from collections.abc import Iterable, Iterator

import numpy as np

HEADERS = {
    "dat": b"% Data file containing CD events\n% Version 2\n% Width 640\n% Height 480\n\x0c\x08",
    "evt2": b"% evt 2.0\n% format EVT2;height=480;width=640\n% end\n",
    "evt21": b"% evt 2.1\n% format EVT21;height=480;width=640\n% end\n",
    "evt3": b"% evt 3.0\n% format EVT3;height=480;width=640\n% end\n",
    "dvs128": b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n",
    "davis240": b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n",
    "aedat3": b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 0: DVS128\r\n#!END-HEADER\r\n",
}
SUFFIXES = {"dat": ".dat", "evt2": ".raw", "evt21": ".raw", "evt3": ".raw"}  # the others: .aedat
SENSORS = {"dvs128": (128, 128), "davis240": (240, 180), "aedat3": (128, 128)}  # the others: 640 x 480

Events = Iterable[tuple[int, int, int, int]]


def dat(events: Events) -> bytes:
    return b"".join(struct.pack("<II", t % 2**32, p << 28 | y << 14 | x) for x, y, t, p in events)


def evt2(events: Events) -> bytes:
    out, high = [], None
    for x, y, t, p in events:
        if t >> 6 != high:
            high = t >> 6
            out.append(0x8 << 28 | high % 2**28)
        out.append(p << 28 | (t & 63) << 22 | x << 11 | y)
    return struct.pack(f"<{len(out)}I", *out)


def evt21(events: Events, *, high_half_first: bool = False) -> bytes:
    """Neighbours in a row at the same time share a word, which has a bit for each of 32 pixels."""
    out, high, last = [], None, None
    for x, y, t, p in events:
        if t >> 6 != high:
            high, last = t >> 6, None
            out.append([0x8 << 28 | high % 2**28, 0])
        if last and last[1:] == (y, t, p) and last[0] <= x < last[0] + 32 and not out[-1][1] >> (x - last[0]):
            out[-1][1] |= 1 << (x - last[0])
        else:
            last = (x, y, t, p)
            out.append([p << 28 | (t & 63) << 22 | x << 11 | y, 1])
    order = slice(None) if high_half_first else slice(None, None, -1)
    return b"".join(struct.pack("<II", *halves[order]) for halves in out)


def evt3(events: Events, *, vectors: bool = True) -> bytes:
    """Runs of pixels with the same row, time and polarity are written as vectors of 12 and 8 pixels."""
    out, high, low, row = [], None, None, None
    runs: list[list[tuple[int, int, int, int]]] = []
    for event in events:
        if vectors and runs and runs[-1][-1][1:] == event[1:] and 0 < event[0] - runs[-1][-1][0] < 12:
            runs[-1].append(event)
        else:
            runs.append([event])
    for run in runs:
        x, y, t, p = run[0]
        if t >> 12 != high:
            high, low = t >> 12, None
            out.append(0x8000 | high % 2**12)
        if t & 0xFFF != low:
            low = t & 0xFFF
            out.append(0x6000 | low)
        if y != row:
            row = y
            out.append(y)
        if len(run) == 1:
            out.append(0x2000 | p << 11 | x)
            continue
        out.append(0x3000 | p << 11 | x)
        pixels = {event[0] - x for event in run}
        for base in range(0, max(pixels) + 1, 12):
            bits = sum(1 << k for k in range(12) if base + k in pixels)
            out.append(0x5000 | bits if bits < 256 and base + 12 > max(pixels) else 0x4000 | bits)
    return struct.pack(f"<{len(out)}H", *out)


def dvs128(events: Events) -> bytes:
    return b"".join(struct.pack(">Ii", y << 8 | (127 - x) << 1 | (1 - p), _signed(t)) for x, y, t, p in events)


def davis240(events: Events) -> bytes:
    return b"".join(
        struct.pack(">Ii", (179 - y) << 22 | (239 - x) << 12 | p << 11, _signed(t)) for x, y, t, p in events
    )


def aedat3(events: Events, *, packet: int = 100) -> bytes:
    """Packets of up to `packet` events, within which the 31 bits of time do not wrap."""
    out: list[tuple[int, list[bytes]]] = []
    for x, y, t, p in events:
        if not out or out[-1][0] != t >> 31 or len(out[-1][1]) == packet:
            out.append((t >> 31, []))
        out[-1][1].append(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t % 2**31))
    return b"".join(packet_head(1, len(body), turns=turns) + b"".join(body) for turns, body in out)


def packet_head(kind: int, number: int, *, size: int = 8, turns: int = 0, source: int = 0, capacity: int = -1) -> bytes:
    capacity = number if capacity < 0 else capacity
    return struct.pack("<hhiiiiii", kind, source, size, 4, turns, capacity, number, number)


ENCODERS = {
    "dat": dat,
    "evt2": evt2,
    "evt21": evt21,
    "evt3": evt3,
    "dvs128": dvs128,
    "davis240": davis240,
    "aedat3": aedat3,
}


def file_of(name: str, events: Events) -> bytes:
    return HEADERS[name] + ENCODERS[name](events)


def random_events(rng: random.Random, name: str, count: int = 400, start: int = 0, gap: int = 900) -> list:
    """Events in order of time, some of them neighbours at the same time."""
    width, height = SENSORS.get(name, (640, 480))
    events, t = [], start
    while len(events) < count:
        t += rng.choice([0, 0, 1, rng.randrange(gap)])
        y, p = rng.randrange(height), rng.randrange(2)
        x = rng.randrange(width)
        for _ in range(rng.choice([1, 1, 1, 6, 40])):
            if x < width:
                events.append((x, y, t, p))
            x += rng.randrange(1, 4)
    return events[:count]


# --- read, one word at a time ---


def nearest(last: int | None, value: int, period: int) -> int:
    """Return the time congruent to `value` that is nearest to the last one."""
    if last is None:
        return value
    return last + (value - last + period // 2) % period - period // 2


def read_evt3(words: Iterable[int]) -> list[tuple[int, int, int, int]]:
    def found() -> Iterator[tuple[int, int, int, int]]:
        high = y = x = None
        low = on = 0
        for word in words:
            kind, value = word >> 12, word & 0xFFF
            if kind == 0x0:
                y = value & 0x7FF
            elif kind == 0x1:
                y = None
            elif kind == 0x3:
                x, on = value & 0x7FF, value >> 11
            elif kind == 0x6:
                low = value
            elif kind == 0x8:
                if high is None or value != high % 4096:
                    low = 0
                high = nearest(high, value, 4096)
            pixels = []
            if kind == 0x2:
                pixels = [(value & 0x7FF, value >> 11)]
            elif kind in (0x4, 0x5) and x is not None:
                width = 12 if kind == 0x4 else 8
                pixels = [(x + k, on) for k in range(width) if value >> k & 1]
                x += width
            if high is not None and y is not None:
                yield from ((at, y, high * 4096 + low, p) for at, p in pixels)

    return sorted(found(), key=lambda event: event[2])


def read_evt2(words: Iterable[int]) -> list[tuple[int, int, int, int]]:
    found, high = [], None
    for word in words:
        if word >> 28 == 8:
            high = nearest(high, word & 0xFFFFFFF, 2**28)
        elif word >> 28 < 2 and high is not None:
            found.append((word >> 11 & 0x7FF, word & 0x7FF, high * 64 + (word >> 22 & 63), word >> 28))
    return sorted(found, key=lambda event: event[2])


def listed(events: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return the events of an array with the fields x, y, t and p."""
    return [(int(e["x"]), int(e["y"]), int(e["t"]), int(e["p"])) for e in events]


def _signed(t: int) -> int:
    return (t + 2**31) % 2**32 - 2**31
