"""Plain arrays, text, HDF5 and MATLAB: the meaning and unit of each column."""

import h5py
import numpy as np
import pytest

from tmkt.data.readers import Columns, read_recording
from tmkt_kernels import events as ev


def test_plain_matrix_with_columns_in_the_call_and_beside_it(tmp_path, events):
    matrix = np.stack([events["t"] / 1e6, events["x"], events["y"], events["p"]], axis=1)
    path = tmp_path / "data" / "0" / "a.npy"
    path.parent.mkdir(parents=True)
    np.save(path, matrix)
    with pytest.raises(ev.DamagedRecordingError, match=r"holds a plain array float64 \[500, 4\].*columns\.yaml"):
        read_recording(path)
    assert np.array_equal(read_recording(path, Columns(x=1, y=2, t=0, p=3, unit="s")).events, events)
    (tmp_path / "columns.yaml").write_text("t: 0\nx: 1\ny: 2\np: 3\nunit: s\n")
    assert np.array_equal(read_recording(path).events, events)
    (tmp_path / "data" / "columns.yaml").write_text("t: 0\nx: 2\ny: 1\np: 3\nunit: ms\n")  # the nearer file counts
    swapped = read_recording(path).events
    assert np.array_equal(swapped["x"], events["y"])
    assert np.array_equal(swapped["t"], np.rint(events["t"] / 1e3).astype(int))


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("header", [True, False])
def test_text(tmp_path, events, separator, header):
    rows = zip(events["t"], events["x"], events["y"], events["p"].astype(int), strict=True)
    lines = ["# made by a test", "", *([separator.join(["time", "x", "y", "on"])] if header else [])]
    lines += [separator.join([f"{t / 1e6:.6f}", str(x), str(y), str(p)]) for t, x, y, p in rows]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(ev.DamagedRecordingError, match=r"lacks the field.s. .*it holds columns .*columns\.yaml"):
        read_recording(path)
    named = Columns(t="time", p="on", unit="s") if header else Columns(t=0, x=1, y=2, p=3, unit="s")
    assert np.array_equal(read_recording(path, named).events, events)
    assert np.array_equal(read_recording(path, Columns(t=0, x=1, y=2, p=3, unit="s")).events, events)


def test_the_unit_of_text_is_never_guessed(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,t,p\n1,2,3,0\n")
    with pytest.raises(
        ev.DamagedRecordingError, match=r"does not say the unit of its times; .*`unit: us`.*s, ms, us, ns"
    ):
        read_recording(tmp_path / "a.csv")


@pytest.mark.parametrize("polarity", ["0", "0.0"])
def test_nanoseconds_since_1970_are_exact(tmp_path, polarity):
    start = 1_600_000_000_123_456_789
    lines = "".join(f"1,2,{start + 1000 * i},{polarity}\n" for i in range(5))
    (tmp_path / "a.csv").write_text(f"x,y,t,p\n{lines}")
    read = read_recording(tmp_path / "a.csv", Columns(unit="ns")).events
    assert read["t"].tolist() == [start // 1000 + i for i in range(5)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y,t,p\n", "holds no events"),
        ("1,2,3,True\n2,2,3,1\n", "has a first line of neither numbers nor names"),
        ("x,y,t,t,p\n2,2,3,1,1\n", "has a first line of neither numbers nor names of columns, each another"),
        ("x,y,t,p\n1,2,3\n", "is cut off or no table of numbers"),
        ("x,y,t,p\n1,2,3,\n", "is cut off or no table of numbers"),
        ("346 260\n1 2 3 0\n", "lacks the field.s. x, y, t, p: it holds columns 0, 1"),
        ("x,y,t,p\n1,2,nan,0\n", "t = nan us is no time"),
        ("x,y,t,p\n1,2,99999999999999999999,0\n", "t = 1e.20 us is no time"),
        ("x,y,t,p\n1.5,2,3,0\n", "event 0: x: expected one whole number an event, got 1.5"),
    ],
)
def test_text_that_is_no_recording_is_named(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ev.DamagedRecordingError, match=message):
        read_recording(tmp_path / "a.csv", Columns(unit="us"))


@pytest.mark.parametrize("place", ["", "events/", "CD/events/", "TD/"])
def test_hdf5_of_common_layouts(tmp_path, events, place):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in events.dtype.names:
            file.create_dataset(f"{place}{name}", data=events[name], compression="gzip")
        file["ms_to_idx"] = np.arange(10)
    assert np.array_equal(read_recording(path).events, events)
    with h5py.File(path, "w") as file:  # one data set with fields, as in Prophesee's files
        file["CD/events"] = events
    assert np.array_equal(read_recording(path).events, events)


def test_hdf5_by_path(tmp_path, events):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["davis/left/events"] = np.stack([events["x"], events["y"], events["t"] / 1e6, events["p"]], axis=1)
    with pytest.raises(ev.DamagedRecordingError, match=r"it holds davis/left/events \(float64 \[500, 4\]\)"):
        read_recording(path)
    where = {name: f"davis/left/events/{k}" for k, name in enumerate("xytp")}
    assert np.array_equal(read_recording(path, Columns(**where, unit="s")).events, events)


def test_hdf5_with_fractions_of_seconds_asks_for_the_unit(tmp_path, events):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in events.dtype.names:
            file[f"events/{name}s"] = events[name] / 1e6 if name == "t" else events[name]
    with pytest.raises(ev.DamagedRecordingError, match=r"t: expected one whole number an event.*microseconds.*unit"):
        read_recording(path)
    assert np.array_equal(read_recording(path, Columns(unit="s")).events, events)


def test_mat_of_version_7_3(tmp_path, events):
    """An HDF5 file behind 512 bytes of MATLAB's own; vectors are matrices of one row."""
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in {"x": events["x"], "y": events["y"], "ts": events["t"], "p": events["p"]}.items():
            file[name] = values[None].astype(np.float64)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    assert np.array_equal(read_recording(path).events, events)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x: 0\nz: 1\n", r"columns\.yaml cannot be used \(expected lines such as `t: 0`, of x, y, t, p, unit"),
        ("unit: hours\n", r"cannot be used \(unit: expected one of s, ms, us, ns, got 'hours'"),
        ("- 1\n", "cannot be used"),
        ("x: [1\n", "cannot be used"),
        ("[" * 3000, "cannot be used"),
        ("x: 7\ny: 0\nt: 1\np: 2\n", r"lacks the field\(s\) 7"),
    ],
)
def test_columns_that_cannot_be_used_are_named(tmp_path, content, message):
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    (tmp_path / "columns.yaml").write_text(content)
    with pytest.raises(ev.DamagedRecordingError, match=message):
        read_recording(tmp_path / "a.npy")
