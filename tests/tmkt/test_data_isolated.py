"""Reading in a separate process: errors name a file that ends it, or takes too much time or memory."""

import multiprocessing
import os
import signal
import time

import h5py
import numpy as np
import pytest
import scipy.io

from tmkt.data import isolated
from tmkt.data.readers import Columns, read_recording
from tmkt_kernels import events as ev


@pytest.mark.parametrize("name", ["000_evt3_hang.raw", "000_npy_raw.npy", "007_npzc_raw.npz", "023_mat_crash.mat",
                                  "025_aedat4_raw.aedat4", "040_aedat4_crash.aedat4"])  # fmt: skip
def test_files_that_hang_crash_or_break_libraries_are_named(tmp_path, shared_data, events, name):
    if not (shared_data / "damaged").is_dir():
        pytest.skip("no damaged files in the shared data")
    with pytest.raises(ev.DamagedRecordingError, match=name):
        read_recording(shared_data / "damaged" / name)
    np.save(tmp_path / "a.npy", events)
    assert np.array_equal(read_recording(tmp_path / "a.npy").events, events)


def kill_child():
    child = isolated.process_id()
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # and leave its status for the reader


def test_a_child_that_is_gone_is_started_again(tmp_path, events):
    np.save(tmp_path / "a.npy", events)
    read_recording(tmp_path / "a.npy")
    first = isolated.process_id()
    kill_child()
    assert np.array_equal(read_recording(tmp_path / "a.npy").events, events)
    assert isolated.process_id() != first


@pytest.fixture
def end_children(monkeypatch):
    """Returns a function that ends the next `children` processes while they read."""

    def end(children):
        read, left = isolated.read_whole, iter(range(children))

        def ended(pipe, into):
            if next(left, None) is None:
                return read(pipe, into)
            kill_child()
            raise EOFError

        monkeypatch.setattr(isolated, "read_whole", ended)

    return end


def test_a_file_that_ends_one_child_is_read_by_the_next(tmp_path, events, end_children):
    """Something else may have killed the first."""
    np.save(tmp_path / "a.npy", events)
    end_children(1)
    assert np.array_equal(read_recording(tmp_path / "a.npy").events, events)


def test_a_file_is_damaged_where_it_ends_two_children(tmp_path, events, end_children):
    np.save(tmp_path / "a.npy", events)
    end_children(2)
    with pytest.raises(ev.DamagedRecordingError, match=r"a\.npy: crashes the library that reads it \(SIGKILL\)"):
        read_recording(tmp_path / "a.npy")
    assert np.array_equal(read_recording(tmp_path / "a.npy").events, events)


def test_reading_that_takes_too_long_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "SECONDS", 0.01)
    monkeypatch.setattr(isolated, "SECOND_BYTES", 1 << 40)
    (tmp_path / "a.csv").write_text("x,y,t,p\n" + "1,2,3,0\n" * 2_000_000)
    began = time.monotonic()
    with pytest.raises(ev.DamagedRecordingError, match=r"a\.csv: takes more than 0 s to read"):
        read_recording(tmp_path / "a.csv", Columns(unit="us"))
    assert time.monotonic() - began < 10


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(tmp_path, events, monkeypatch):
    for name, made in (("a", events), ("b", events[::-1][:7])):
        np.save(tmp_path / f"{name}.npy", made)
    read = isolated.read_whole

    def interrupted(pipe, into):
        raise KeyboardInterrupt

    monkeypatch.setattr(isolated, "read_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_recording(tmp_path / "a.npy")
    monkeypatch.setattr(isolated, "read_whole", read)
    assert np.array_equal(read_recording(tmp_path / "b.npy").events, events[::-1][:7])


def _read_many(path, count, queue):
    queue.put([len(read_recording(path).events) for _ in range(count)])


def test_forked_processes_have_children_of_their_own(tmp_path, events):
    paths = [tmp_path / f"{k}.npy" for k in range(3)]
    for k, path in enumerate(paths):
        np.save(path, events[: 100 * (k + 1)])
        read_recording(path)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_read_many, args=(path, 20, queue)) for path in paths]
    for worker in workers:
        worker.start()
    found = sorted(queue.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert found == [[100 * (k + 1)] * 20 for k in range(3)]


@pytest.mark.slow
def test_bombs_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "MEMORY", 32 << 20)
    bomb = np.zeros(1 << 27, np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=bomb, y=[1], t=[1], p=[1])
    with pytest.raises(ev.DamagedRecordingError, match=r"a\.npz: takes more than \d+ MB to read"):
        read_recording(tmp_path / "a.npz")
    scipy.io.savemat(tmp_path / "a.mat", {"x": bomb, "y": [1], "ts": [1], "p": [1]}, do_compression=True)
    del bomb
    with pytest.raises(ev.DamagedRecordingError, match=r"a\.mat: takes more than \d+ MB to read"):
        read_recording(tmp_path / "a.mat")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "xytp":
            file.create_dataset(name, (1 << 31,), np.int64)
    with pytest.raises(ev.DamagedRecordingError, match=r"a\.h5: .*(memory|MB)"):
        read_recording(tmp_path / "a.h5")


def test_an_array_that_is_not_needed_may_be_of_any_size(tmp_path, events, monkeypatch):
    monkeypatch.setattr(isolated, "MEMORY", 32 << 20)
    columns = {name: events[name] for name in events.dtype.names}
    np.savez_compressed(tmp_path / "a.npz", frames=np.zeros(1 << 27, np.uint8), **columns)
    assert np.array_equal(read_recording(tmp_path / "a.npz").events, events)
