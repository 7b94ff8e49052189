"""AEDAT 2 and 3.1 against files written by the layout of their words, a real file, and tonic."""

import itertools
import random
import struct

import numpy as np
import pytest
import recorded

from tmkt_kernels import events as ev

pytest.importorskip("tmkt_kernels._events", reason="tmkt_kernels._events is not compiled here")


def test_aedat2_takes_no_notice_of_what_is_no_event(read_as):
    event = recorded.davis240([(3, 4, 100, 1)])
    frame, inertial, outside = (struct.pack(">Ii", a, 100) for a in (0x80000FFF, 0x80400C00, 0x00000400))
    assert recorded.listed(read_as("davis240", frame + event + inertial + outside).events) == [(3, 4, 100, 1)]
    trigger = struct.pack(">Ii", 0x8000, 100)
    assert recorded.listed(read_as("dvs128", trigger + recorded.dvs128([(3, 4, 100, 1)])).events) == [(3, 4, 100, 1)]


@pytest.mark.parametrize(
    "header, body, message",
    [
        (b"#!AER-DAT2.0\r\n", struct.pack(">II", 0x10000, 1), "event 0: its address has more than the 16 bits"),
        (b"#!AER-DAT2.0\r\n# AEChip: a.b.CochleaAMS1b\r\n", b"", "of a camera that is not known, CochleaAMS1b"),
        (recorded.HEADERS["davis240"], struct.pack(">II", 240 << 12, 1), "beyond the sensor of 240 x 180"),
        (recorded.HEADERS["davis240"], struct.pack(">II", 180 << 22, 1), "beyond the sensor of 240 x 180"),
        (b"#!AER-DAT2.0\r\n", b"1234567", "ends 7 bytes into a record of 8"),
        (b"#!AER-DAT2.0", b"", "ends within its header"),
        (b"#!AER-DAT4.0\r\n", b"", r"is AEDAT 4\.0; this function reads 2\.0 and 3\.1"),
        (b"#!AER-DAT3.1\r\n#Format: RAW\r\n", b"", "ends within its header"),
        (b"#!AER-DAT3.1\r\n#Format: Serial\r\n#!END-HEADER\r\n", b"", "packets of format Serial; only RAW"),
        (recorded.HEADERS["aedat3"], b"1234", "packet 0: the file ends within it"),
        (recorded.HEADERS["aedat3"], recorded.packet_head(1, 2) + bytes(8), "packet 0: the file ends within it"),
        (recorded.HEADERS["aedat3"], recorded.packet_head(1, 1, size=-8) + bytes(8), "numbers that no packet can have"),
        (recorded.HEADERS["aedat3"], recorded.packet_head(1, 1, size=0) + bytes(8), "numbers that no packet can have"),
        (recorded.HEADERS["aedat3"], recorded.packet_head(1, 2, capacity=1) + bytes(16), "no packet can have"),
        (
            recorded.HEADERS["aedat3"],
            recorded.packet_head(1, 1) + struct.pack("<Ii", 1, -5),
            "packet 0: holds a negative time",
        ),
        (
            recorded.HEADERS["aedat3"],
            recorded.packet_head(1, 1) + bytes(8) + recorded.packet_head(1, 1, source=1) + bytes(8),
            "packet 1: comes from a second camera",
        ),
    ],
)
def test_aedat_files_that_cannot_be_read_are_named(read, header, body, message):
    with pytest.raises(ev.DamagedRecordingError, match=message):
        read(".aedat", header + body)


def test_aedat3_skips_other_packets_spare_room_and_what_a_filter_took_back(read_as):
    event, taken_back = recorded.aedat3([(3, 4, 5, 1)])[28:], struct.pack("<II", 9 << 17, 6)
    body = (
        recorded.packet_head(2, 1, size=100)
        + bytes(100)
        + recorded.packet_head(1, 2, capacity=5)
        + (event + taken_back + b"\xff" * 24)
        + recorded.packet_head(0, 0)
    )
    assert recorded.listed(read_as("aedat3", body).events) == [(3, 4, 5, 1)]


def test_real_aedat2_file_moves_as_a_bright_digit_does(shared_data):
    """A white digit on black moves back and forth, and its leading side gets brighter."""
    got = ev.read_aedat(shared_data / "formats/mnist_dvs_aedat2.aedat")
    events = got.events
    assert (len(events), got.sensor_size, events["t"][-1]) == (16_525, (128, 128), 2_339_173)
    edges = range(0, 2_200_000, 100_000)
    centre = [events["x"][(events["t"] >= a) & (events["t"] < a + 100_000)].mean() for a in edges]
    moving, ahead = [], []
    for (a, before), after in zip(itertools.pairwise(zip(edges, centre, strict=True)), centre[2:], strict=False):
        now = events[(events["t"] >= before[0]) & (events["t"] < before[0] + 100_000)]
        moving.append(after - a[1])
        ahead.append(now["x"][now["p"]].mean() - now["x"][~now["p"]].mean())
    assert np.corrcoef(moving, ahead)[0, 1] > 0.7


def test_tonic_reads_a_davis_the_same(tmp_path):
    tonic_io = pytest.importorskip("tonic.io")
    rng, path = random.Random(5), tmp_path / "a.aedat"
    header = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346B\r\n"
    addresses = [rng.randrange(260) << 22 | rng.randrange(346) << 12 | rng.randrange(2) << 11 for _ in range(500)]
    path.write_bytes(header + b"".join(struct.pack(">Ii", a, 10 * i) for i, a in enumerate(addresses)))
    shape, *_, theirs = tonic_io.read_davis_346(str(path))
    ours = ev.read_aedat(path)
    assert ours.sensor_size == shape
    assert all(np.array_equal(ours.events[field], theirs[field]) for field in "xytp")
