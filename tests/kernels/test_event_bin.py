"""Reading and writing N-MNIST's .bin files, against tonic and the real recordings."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from event_arrays import random_recording, recording, recordings
from hypothesis import given, settings

from tmkt_kernels import events as ev

pytest.importorskip("tmkt_kernels._events", reason="tmkt_kernels._events is not compiled here")

ROOT = Path(__file__).parents[2]


def test_read_bin_equals_tonic_on_every_real_recording(shared_data):
    tonic_io = pytest.importorskip("tonic.io")
    paths = [*sorted((shared_data / "N-MNIST-small").rglob("*.bin")), shared_data / "formats" / "sample_nmnist.bin"]
    assert len(paths) > 100
    for path in paths:
        events = ev.read_bin(path)
        assert events.dtype == ev.EVENT_DTYPE
        assert np.array_equal(events, tonic_io.read_mnist_file(str(path), dtype=np.dtype(tonic_io.events_struct))), path


def test_write_bin_gives_back_a_real_file_byte_for_byte(tmp_path, shared_data):
    path = shared_data / "formats" / "sample_nmnist.bin"
    ev.write_bin(tmp_path / "copy.bin", ev.read_bin(path))
    assert (tmp_path / "copy.bin").read_bytes() == path.read_bytes()


def test_overflow_markers_shift_all_later_times(tmp_path):
    marker = bytes([9, 240, 0x83, 1, 2])
    path = tmp_path / "markers.bin"
    path.write_bytes(
        bytes([1, 2, 0x80, 0, 10]) + marker + bytes([3, 4, 0, 0, 20]) + marker * 2 + bytes([255, 239, 0x7F, 255, 255])
    )
    expected = recording([1, 3, 255], [2, 4, 239], [10, 8192 + 20, 3 * 8192 + 2**23 - 1], [1, 0, 0])
    assert np.array_equal(ev.read_bin(path), expected)
    tonic_io = pytest.importorskip("tonic.io")
    assert np.array_equal(tonic_io.read_mnist_file(str(path), dtype=ev.EVENT_DTYPE), expected)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(events=recordings(min_size=1))
def test_write_bin_round_trip(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("bin") / "a.bin"
    ev.write_bin(path, events)
    assert np.array_equal(ev.read_bin(path), events)
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_write_bin_interrupted_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "old.bin"
    path.write_bytes(b"old")

    def disk_full(self, data):
        with self.open("wb") as file:
            file.write(data[:3])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="no space left"):
        ev.write_bin(path, random_recording(10, 34, 34))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "0 bytes"),
        (bytes([1, 2, 0x80, 0, 10, 1, 2]), "got 7 bytes"),
        (bytes([1, 2, 0, 0, 10, 1, 2, 0, 0, 10, 1, 2, 0, 0, 9]), "event 2: time runs backwards, from 10 to 9 us"),
    ],
    ids=["empty", "truncated", "backwards"],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "00042.bin"
    path.write_bytes(content)
    with pytest.raises(ev.DamagedRecordingError, match=message) as error:
        ev.read_bin(path)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.bin"):
        ev.read_bin(tmp_path / "none.bin")


@pytest.mark.parametrize(
    "column",
    [{"x": 256}, {"x": -1}, {"y": 256}, {"y": 240}, {"t": -1}, {"t": 2**32}, {"t": 4}],
    ids=lambda column: " ".join(f"{k}={v}" for k, v in column.items()),
)
def test_write_bin_refuses_what_the_format_cannot_hold(tmp_path, column):
    path = tmp_path / "old.bin"
    path.write_bytes(b"old")
    events = recording([1, 2], [3, 4], [5, 6], [0, 1])
    for name, value in column.items():
        events[name][1] = value
    with pytest.raises(ValueError, match="event 1: expected"):
        ev.write_bin(path, events)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_write_bin_names_the_format_for_larger_sensors(tmp_path):
    with pytest.raises(ValueError, match="got x = 1279, y = 4; write_npz takes sensors of any size"):
        ev.write_bin(tmp_path / "a.bin", recording([1, 1279], [3, 4], [5, 6], [0, 1]))


def test_write_bin_refuses_an_empty_recording(tmp_path):
    with pytest.raises(ValueError, match="at least one event"):
        ev.write_bin(tmp_path / "a.bin", np.empty(0, ev.EVENT_DTYPE))


@pytest.mark.slow
def test_import_without_the_compiled_module_and_a_clear_error_on_use():
    script = (
        "import sys; sys.modules['tmkt_kernels._events'] = None\n"
        "from tmkt_kernels import events\n"
        "events.read_bin('a.bin')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ImportError: tmkt_kernels.events needs the compiled module" in done.stderr.splitlines()[-1]
