"""Recordings of every format: round trips, real samples, errors that name damage, and training runs on them."""

import io
import os
import random
import struct
import zipfile

import h5py
import numpy as np
import pytest
import recorded
import scipy.io

from tmkt.data import prepare
from tmkt.data.readers import READERS, Columns, read_recording, read_shared
from tmkt.errors import UserError
from tmkt_kernels import events as ev

OWN = [*recorded.ENCODERS]  # formats that we decode ourselves


def write(path, events, encoding=None):
    """Write the recording in the format of the path's extension."""
    columns = {"x": events["x"], "y": events["y"], "t": events["t"], "p": 2 * events["p"].astype(int) - 1}
    encoding = encoding or {".dat": "dat", ".raw": "evt2", ".aedat": "dvs128"}.get(path.suffix)
    if path.suffix == ".bin":
        ev.write_bin(path, events)
    elif path.suffix == ".npy":
        np.save(path, events)
    elif path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, columns)
    elif path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                file[f"events/{name}"] = values
    elif path.suffix in (".csv", ".txt"):
        separator = "," if path.suffix == ".csv" else " "
        lines = [separator.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        path.write_text("\n".join([separator.join(columns), *lines]) + "\n")
        (path.parent / "columns.yaml").write_text("unit: us\n")
    else:
        path.write_bytes(recorded.file_of(encoding, recorded.listed(events)))


@pytest.mark.parametrize("suffix", sorted(set(READERS) - {".aedat4", ".aedat", ".raw", ".dat"}))
def test_what_was_written_is_read(tmp_path, events, suffix):
    path = tmp_path / f"a{suffix}"
    write(path, events)
    read = read_recording(path).events
    assert read.dtype == ev.EVENT_DTYPE
    assert np.array_equal(read, events)


def test_a_shared_file_is_read_once_until_it_changes(tmp_path, events):
    path = tmp_path / "a.bin"
    write(path, events)
    os.utime(path, ns=(0, 0))
    first = read_shared(path)
    assert read_shared(path) is first
    write(path, events[:100])
    assert len(read_shared(path).events) == 100


@pytest.mark.parametrize("name", OWN)
def test_what_a_camera_wrote_is_read(tmp_path, name):
    made = recorded.random_events(random.Random(0), name)
    path = tmp_path / f"a{recorded.SUFFIXES.get(name, '.aedat')}"
    path.write_bytes(recorded.file_of(name, made))
    recording = read_recording(path)
    assert recorded.listed(recording.events) == made
    assert recording.sensor_size == recorded.SENSORS.get(name, (640, 480))


@pytest.mark.parametrize(
    ("name", "count", "sensor", "largest"),
    [
        ("sample_nmnist.bin", 4325, None, (33, 33)),
        ("ncaltech101_faces_easy_0001.bin", 67_445, None, (150, 172)),
        ("sample_ncars.dat", 2009, None, (77, 41)),
        ("sample.aedat4", 111_954, (320, 240), (319, 239)),
        ("mnist_dvs_aedat2.aedat", 16_525, (128, 128), (127, 127)),
        ("evt2_sample.raw", 539_481, None, (599, 475)),
        ("evt3_sample.raw", 219_596, None, (1279, 719)),
    ],
)
def test_real_samples(shared_data, name, count, sensor, largest):
    recording = read_recording(shared_data / "formats" / name)
    assert (len(recording.events), recording.sensor_size) == (count, sensor)
    assert (recording.events["x"].max(), recording.events["y"].max()) == largest


@pytest.mark.parametrize("suffix", ["upper", ".dat", ".raw", ".npz", ".aedat4", ".csv", ".weird", ""])
@pytest.mark.parametrize("written", [".npy", ".npz", ".mat", ".h5", ".raw", ".aedat"])
def test_the_content_tells_what_a_file_is(tmp_path, events, written, suffix):
    path = tmp_path / f"a{written}"
    write(path, events)
    other = path.rename(tmp_path / f"b{written.upper() if suffix == 'upper' else suffix}")
    assert np.array_equal(read_recording(other).events, events)


@pytest.mark.parametrize("suffix", [".BIN", ".DAT", ".CSV", ".Txt"])
def test_case_of_the_suffix(tmp_path, events, suffix):
    path = tmp_path / f"a{suffix.lower()}"
    write(path, events)
    assert np.array_equal(read_recording(path.rename(tmp_path / f"b{suffix}")).events, events)


def test_aedat4_under_another_name(tmp_path, shared_data):
    for suffix in (".aedat", ".AEDAT4", ".bin"):
        path = tmp_path / f"a{suffix}"
        path.symlink_to(shared_data / "formats/sample.aedat4")
        assert len(read_recording(path).events) == 111_954


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"Event Stream\2\0\0\1", "is an Event Stream"),
        (b"#ROSBAG V2.0\n", "is a ROS bag"),
        (b"\x1f\x8b\x08\0", "is compressed; unpack it first"),
        (b"#!AER-DAT1.0\r\n", r"is AEDAT 1\.0"),
        (b"\xff\xd8\xff\xe0", "is no recording; expected one of"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, start, message):
    (tmp_path / "a.es").write_bytes(start + bytes(100))
    with pytest.raises(ev.DamagedRecordingError, match=message):
        read_recording(tmp_path / "a.es")


def test_a_bin_file_that_begins_like_a_header(tmp_path):
    """x = 37, y = 32 are the bytes '% ', with which header lines of Prophesee's files begin."""
    made = np.array([(37, 32, 5, True), (31, 139, 10, False)], ev.EVENT_DTYPE)
    ev.write_bin(tmp_path / "a.bin", made)
    assert np.array_equal(read_recording(tmp_path / "a.bin").events, made)
    ev.write_bin(tmp_path / "a.bin", made[1:])
    assert np.array_equal(read_recording(tmp_path / "a.bin").events, made[1:])


@pytest.mark.parametrize("suffix", sorted(set(READERS) - {".aedat4", ".csv", ".txt"}))
@pytest.mark.parametrize("left", [0, 7, -1], ids=["0 bytes", "7 bytes", "last byte lost"])
def test_cut_off_files_are_named(tmp_path, events, suffix, left):
    path = tmp_path / f"a{suffix}"
    write(path, events)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ev.DamagedRecordingError) as error:
        read_recording(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("left", [0, 100, 900_001])
def test_cut_off_aedat4_is_named(tmp_path, shared_data, left):
    path = tmp_path / "a.aedat4"
    path.write_bytes((shared_data / "formats/sample.aedat4").read_bytes()[:left])
    with pytest.raises(ev.DamagedRecordingError, match=r"a\.aedat4"):
        read_recording(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": [1], "y": [1], "t": [1]}, r"lacks the field\(s\) p: it holds x \(int64 \[1\]\), y"),
        ({"x": [1], "q": [1]}, r"lacks the field\(s\) y, t, p: it holds x \(int64 \[1\]\), q"),
        ({"x": [1, 2], "y": [1, 1], "t": [1, 1], "p": [1]}, r"different lengths, \[1, 2\]"),
        ({"x": [1.5], "y": [1], "t": [1], "p": [1]}, "event 0: x: expected one whole number an event, got 1.5"),
        (
            {"x": [[1, 2], [3, 4]], "y": [1], "t": [1], "p": [1]},
            r"x: expected one whole number an event, got int64 \[2, 2\]",
        ),
        (
            {"x": [1], "y": [1], "t": [0.1], "p": [1]},
            "t: expected one whole number an event, got 0.1 .*: of microseconds",
        ),
        ({"x": [1], "y": [1], "t": [np.inf], "p": [1]}, "t: expected one whole number an event, got inf"),
        ({"x": [1], "y": [1], "t": [np.nan], "p": [1]}, "t: expected one whole number an event, got nan"),
        ({"x": [1], "y": [1], "t": [1e300], "p": [1]}, r"t: expected one whole number an event, got 1e\+300"),
        ({"x": [1], "y": [1], "t": np.array([2**63], np.uint64), "p": [1]}, "t = 9223372036854775808 is 2.63 or more"),
        ({"x": [1], "y": [1], "t": [1], "ts": [1], "p": [1]}, "holds both t and ts; name the one"),
        ({"x": [1], "y": [1], "t": [1], "p": [2]}, "event 0: expected p from 0 to 1, got 2"),
        ({"x": [1] * 3, "y": [1] * 3, "t": [1] * 3, "p": [1, 0, -1]}, "event 1: expected p of -1 and .1, .* got 0"),
        ({"x": [2**20], "y": [1], "t": [1], "p": [0]}, "expected x from"),
        ({"x": [1, -3], "y": [1, 1], "t": [1, 1], "p": [0, 0]}, "event 1: x = -3; expected pixels from 0 on"),
        ({"x": ["a"], "y": [1], "t": [1], "p": [0]}, "holds no numbers .x: <U1."),
        ({"x": [1j], "y": [1], "t": [1], "p": [0]}, "holds no numbers .x: complex128."),
        ({"x": [], "y": [], "t": [], "p": []}, "holds no events"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_that_are_no_events_are_named(tmp_path, content, message, save):
    save(tmp_path / "a.npz", **content)
    with pytest.raises(ev.DamagedRecordingError, match=message):
        read_recording(tmp_path / "a.npz")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("time", [1e300, np.nan, -np.inf])
def test_times_that_are_none_are_named(tmp_path, unit, time):
    np.savez(tmp_path / "a.npz", x=[1], y=[1], t=[time], p=[1])
    with pytest.raises(ev.DamagedRecordingError, match=f"{unit} is no time, or {unit} is not its unit"):
        read_recording(tmp_path / "a.npz", Columns(unit=unit))


@pytest.mark.parametrize("unit, time", [("s", 2**43), ("ms", 2**53), ("us", 2**62), ("us", np.uint64(2**64 - 1))])
def test_times_that_64_bits_of_microseconds_do_not_hold_are_named(tmp_path, unit, time):
    np.savez(tmp_path / "a.npz", x=[1], y=[1], t=np.array([time]), p=[1])
    with pytest.raises(ev.DamagedRecordingError, match=f"{unit} is no time, or {unit} is not its unit"):
        read_recording(tmp_path / "a.npz", Columns(unit=unit))


def test_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array({"x": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(
        ev.DamagedRecordingError, match=r"never loaded \(Object arrays cannot be loaded.*save arrays of"
    ):
        read_recording(tmp_path / "a.npy")


def test_a_struct_of_matlab_says_how_to_save_its_fields(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"TD": {"x": [1], "y": [2], "ts": [3], "p": [1]}})
    message = r"it holds TD \(struct \[1, 1\]\); .*save\(file, '-struct', 'TD'\)"
    with pytest.raises(ev.DamagedRecordingError, match=message):
        read_recording(tmp_path / "a.mat")


@pytest.mark.parametrize(
    "shape", ["(-1,)", "(10000000000000,)", "(1180591620717411303424,)", "(True,)", "(0, 4)", "()", "-" * 3000 + "1"]
)
def test_headers_of_npy_that_promise_too_much_are_named(tmp_path, shape):
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(80))
    with pytest.raises(ev.DamagedRecordingError, match=r"a\.npy: "):
        read_recording(tmp_path / "a.npy")


def test_zip_files_of_other_kinds_are_named(tmp_path):
    inside = io.BytesIO()
    np.save(inside, np.arange(3))
    for method, change in ((zipfile.ZIP_LZMA, None), (zipfile.ZIP_DEFLATED, (8, 0xFF)), (zipfile.ZIP_DEFLATED, (6, 1))):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            for name in "xytp":
                archive.writestr(f"{name}.npy", inside.getvalue())
        data = bytearray((tmp_path / "a.npz").read_bytes())
        if change:  # method and flags, in the header of each member and in the list at the end
            for mark, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
                at = -1
                while (at := data.find(mark, at + 1)) >= 0:
                    data[at + change[0] + shift] = change[1]
            (tmp_path / "a.npz").write_bytes(data)
            with pytest.raises(ev.DamagedRecordingError, match=r"a\.npz: is cut off or no array of events"):
                read_recording(tmp_path / "a.npz")
        else:
            with pytest.raises(ev.DamagedRecordingError, match="expected p from 0 to 1"):
                read_recording(tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", [">i2", ">i8", "<u4", "<f2", "<f8", ">f4", "longdouble"])
@pytest.mark.parametrize("save", [np.save, np.savez])
def test_numbers_of_every_kind(tmp_path, events, dtype, save):
    table = np.zeros(len(events), [("label", "S3"), *((name, np.dtype(dtype)) for name in "ptyx")])
    for name in events.dtype.names:
        table[name] = events[name] // (1000 if name == "t" else 1)  # small enough for every dtype
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, table)
    read = read_recording(path).events
    for name in "xytp":
        assert np.array_equal(read[name], table[name].astype(np.int64))


def test_our_own_npz_states_its_sensor(tmp_path, events):
    ev.write_npz(tmp_path / "a.npz", events, (1280, 720))
    recording = read_recording(tmp_path / "a.npz")
    assert np.array_equal(recording.events, events)
    assert recording.sensor_size == (1280, 720)


def test_folder_of_mixed_formats_and_sizes_trains_on_all(tiny, recordings):
    """Without a sensor size each recording is stretched from its own extent, so that no event is lost."""
    for i, path in enumerate(sorted(recordings.rglob("*.bin"))):
        made = ev.read_bin(path)
        made["x"] += i % 5
        path.unlink()
        write(path.with_suffix([".bin", ".npz", ".npy", ".h5", ".csv"][i % 5]), made)
    data = prepare(tiny.replace(data__events__sensor_size=None))
    frames = data.train.events.frames
    assert frames.shape[-2:] == (16, 16)
    assert frames.sum((0, 2, 3, 4)).numpy() == pytest.approx(400, rel=1e-4)


def test_frames_in_the_cache_follow_the_columns(tiny, recordings, tmp_path):
    for path in recordings.rglob("*.bin"):
        made = ev.read_bin(path)
        np.save(path.with_suffix(".npy"), np.stack([made[name] for name in "xytp"], axis=1))
        path.unlink()
    tiny = tiny.replace(data__cache=str(tmp_path / "cache"))
    frames = []
    for x, y in ((0, 1), (1, 0), (0, 1)):
        (recordings / "columns.yaml").write_text(f"x: {x}\ny: {y}\nt: 2\np: 3\nunit: us\n")
        frames.append(prepare(tiny).train.events.frames.clone())
    assert np.array_equal(frames[0], frames[1].transpose(-1, -2))
    assert np.array_equal(frames[0], frames[2])


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
