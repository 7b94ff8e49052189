"""Recordings of every format: real samples, round trips, and damage that is named."""

import numpy as np
import pytest
import scipy.io
from expelliarmus import Wizard

from tmkt.data import prepare
from tmkt.data.readers import READERS, read_recording
from tmkt.errors import UserError
from tmkt_kernels import events as ev

HEADERS = {".dat": "% Width 304\n% Height 240\n", ".raw": "% evt 3.0\n% format EVT3;height=240;width=304\n"}


@pytest.fixture
def events():
    rng = np.random.default_rng(0)
    made = np.zeros(500, ev.EVENT_DTYPE)
    made["x"], made["y"] = rng.integers(0, 200, 500), rng.integers(0, 180, 500)
    made["t"], made["p"] = np.sort(rng.integers(0, 100_000, 500)), rng.integers(0, 2, 500)
    return made


def write(path, events, encoding=None):
    """The recording in the format of the path's extension."""
    columns = {"x": events["x"], "y": events["y"], "t": events["t"], "p": 2 * events["p"].astype(int) - 1}
    if path.suffix == ".bin":
        ev.write_bin(path, events)
    elif path.suffix == ".npy":
        np.save(path, events)
    elif path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, columns)
    else:
        plain = np.zeros(len(events), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
        for name in plain.dtype.names:
            plain[name] = events[name]
        Wizard(encoding=encoding or "dat").save(path, plain)


@pytest.mark.parametrize(
    ("suffix", "encoding"),
    [
        (".bin", None),
        (".npy", None),
        (".npz", None),
        (".mat", None),
        (".dat", "dat"),
        (".raw", "evt2"),
        (".raw", "evt3"),
    ],
)
def test_what_was_written_is_read(tmp_path, events, suffix, encoding):
    path = tmp_path / f"a{suffix}"
    write(path, events, encoding)
    read = read_recording(path).events
    assert read.dtype == ev.EVENT_DTYPE
    order = ("t", "y", "x", "p")  # EVT3 groups events of one time by row
    assert np.array_equal(np.sort(read, order=order), np.sort(events, order=order))
    assert (np.diff(read["t"]) >= 0).all()


@pytest.mark.parametrize(
    ("name", "count", "sensor", "largest"),
    [
        ("sample_nmnist.bin", 4325, None, (33, 33)),
        ("sample_ncars.dat", 2009, None, (77, 41)),
        ("sample.aedat4", 111_954, (320, 240), (319, 239)),
        ("evt2_sample.raw", 539_481, None, (599, 475)),
        ("evt3_sample.raw", 219_596, None, (1279, 719)),
        ("evt3_sample.npy", 219_596, None, (1279, 719)),
    ],
)
def test_real_samples(shared_data, name, count, sensor, largest):
    recorded = read_recording(shared_data / "formats" / name)
    assert (len(recorded.events), recorded.sensor_size) == (count, sensor)
    assert (recorded.events["x"].max(), recorded.events["y"].max()) == largest


def test_evt3_equals_its_decoded_copy(shared_data):
    raw, decoded = (read_recording(shared_data / f"formats/evt3_sample.{s}").events for s in ("raw", "npy"))
    assert np.array_equal(raw, decoded)


@pytest.mark.parametrize("suffix", [".dat", ".raw"])
def test_sensor_size_of_the_header(tmp_path, events, suffix):
    path = tmp_path / f"a{suffix}"
    write(path, events, "evt3" if suffix == ".raw" else "dat")
    body = path.read_bytes()
    while body.startswith(b"% "):
        body = body.partition(b"\n")[2]
    path.write_bytes(HEADERS[suffix].encode() + body)
    recorded = read_recording(path)
    assert recorded.sensor_size == (304, 240)
    assert len(recorded.events) == len(events)


@pytest.mark.parametrize("suffix", sorted(set(READERS) - {".aedat4"}))
@pytest.mark.parametrize("left", [0, 7, -1], ids=["0 bytes", "7 bytes", "last byte lost"])
def test_cut_off_files_are_named(tmp_path, events, suffix, left):
    path = tmp_path / f"a{suffix}"
    write(path, events, "evt2" if suffix == ".raw" else "dat")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ev.DamagedRecordingError) as error:
        read_recording(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["sample_ncars.dat", "sample_nmnist.bin", "evt2_sample.raw", "evt3_sample.raw"])
def test_random_damage_is_read_or_named(tmp_path, shared_data, name):
    """No reader answers bytes that it does not understand with another error, or a crash."""
    rng, whole = np.random.default_rng(0), (shared_data / "formats" / name).read_bytes()[:20_000]
    path, said = tmp_path / name, []
    for _ in range(40):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 20):
            data[place] = rng.integers(256)
        path.write_bytes(data[rng.integers(100) * rng.integers(2) :])
        try:
            read_recording(path)
        except ev.DamagedRecordingError as error:
            said.append(str(error))
    assert said
    assert all(message.startswith(f"{path}: ") for message in said)


@pytest.mark.parametrize("left", [0, 100, 900_001])
def test_cut_off_aedat4_is_named(tmp_path, shared_data, left):
    path = tmp_path / "a.aedat4"
    path.write_bytes((shared_data / "formats/sample.aedat4").read_bytes()[:left])
    with pytest.raises(ev.DamagedRecordingError, match=r"a\.aedat4"):
        read_recording(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": [1], "y": [1], "t": [1]}, r"lacks the field\(s\) p"),
        ({"x": [1, 2], "y": [1, 1], "t": [1, 1], "p": [1]}, r"different lengths, \[1, 2\]"),
        ({"x": [1.5], "y": [1], "t": [1], "p": [1]}, "x: expected one whole number an event"),
        ({"x": [1], "y": [1], "t": [1], "p": [2]}, "expected p from 0 to 1, got 2"),
        ({"x": [2**20], "y": [1], "t": [1], "p": [0]}, "expected x from"),
        ({"x": [], "y": [], "t": [], "p": []}, "holds no events"),
    ],
)
def test_arrays_that_are_no_events_are_named(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(ev.DamagedRecordingError, match=message):
        read_recording(tmp_path / "a.npz")


def test_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array({"x": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(ev.DamagedRecordingError, match="Object arrays cannot be loaded"):
        read_recording(tmp_path / "a.npy")


def test_folder_of_mixed_formats_and_sizes_trains_on_all(tiny, recordings):
    """Without a sensor size each recording is stretched from its own extent: no event is lost."""
    for i, path in enumerate(sorted(recordings.rglob("*.bin"))):
        made = ev.read_bin(path)
        made["x"] += i % 5
        path.unlink()
        write(path.with_suffix([".bin", ".npz", ".dat", ".npy"][i % 4]), made)
    data = prepare(tiny.replace(data__events__sensor_size=None))
    frames = data.train.events.frames
    assert frames.shape[-2:] == (16, 16)
    assert frames.sum((0, 2, 3, 4)).numpy() == pytest.approx(400, rel=1e-4)


def test_a_header_that_contradicts_the_configuration_is_an_error(tiny, recordings, shared_data):
    (recordings / "0" / "x.aedat4").symlink_to(shared_data / "formats/sample.aedat4")
    tiny = tiny.replace(data__events__train_per_class=9, data__events__validation_per_class=0)
    for path in recordings.glob("[12]/00016.bin"):
        path.unlink()
    tiny = tiny.replace(data__events__train_per_class=6)
    with pytest.raises(UserError, match=r"x\.aedat4: its header says 320x240, data.events.sensor_size 16x16"):
        prepare(tiny)


def test_window_cuts_and_moves(tiny):
    whole = prepare(tiny).train.events.frames
    cut = prepare(tiny.replace(data__events__window=[4, 0, 8, 16], data__size=[8, 16])).train.events.frames
    assert np.array_equal(cut.sum(0), whole[..., 4:12].sum(0))
