"""The frame cache: its content, the changes that rebuild it, and its survival of kills and of other processes."""

import io
import json
import multiprocessing
import os
import pickle
import platform
import re
import resource
import signal
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tmkt.cli import main
from tmkt.data import prepare
from tmkt.data.cache import Entry, FrameCache
from tmkt.errors import UserError
from tmkt_kernels import events as ev


@pytest.fixture
def cached(tiny, tmp_path):
    return tiny.replace(data__cache=str(tmp_path / "cache"))


def files(config):
    return sorted(path.name for path in Path(config.data.cache).iterdir())


def frames(data):
    return [part.frames.clone() for part in (data.train.events, data.validation, data.test)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_cached_frames_are_those_read(tiny, cached, monkeypatch):
    read = frames(prepare(tiny))
    assert same(frames(prepare(cached)), read)
    monkeypatch.setattr("tmkt.data.sources.folder.read_recording", None)  # nothing is read a second time
    assert same(frames(prepare(cached)), read)


@pytest.mark.parametrize(
    "change",
    [
        {"data__time_steps": 5},
        {"data__size": [8, 8]},
        {"data__events__sensor_size": None},
        {"data__events__window": [0, 0, 16, 16]},
        {"data__events__train_per_class": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_parameter_has_its_own_files(cached, change):
    prepare(cached)
    before = files(cached)
    changed = prepare(cached.replace(**change))
    assert set(before) < set(files(cached))
    assert same(frames(changed), frames(prepare(cached.replace(data__cache=None, **change))))


def test_another_version_of_the_frames_has_its_own_files(cached, monkeypatch):
    prepare(cached)
    before = files(cached)
    monkeypatch.setattr("tmkt.data.loading.FRAMES_VERSION", 0)
    prepare(cached)
    assert len(files(cached)) == 2 * len(before)


def test_a_changed_recording_is_noticed_and_said(cached, recordings, capsys):
    prepare(cached)
    count = len(files(cached))
    path = recordings / f"{prepare(cached).test.names[0]}.bin"
    events = ev.read_bin(path)
    events["x"][:] = 3
    ev.write_bin(path, events)
    data = prepare(cached)
    assert data.test.frames[:, 0, :, :, 3].sum() == len(events)
    assert "test recordings: the recordings have changed since it was made; made anew" in unwrapped(capsys)
    assert len(files(cached)) == count  # the old file is deleted


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-5]), "bytes, .* were written; made anew"),
        (lambda p: p.write_bytes(p.read_bytes()[:-5] + b"\1\2\3\4\5"), r"damaged \(check sum\); made anew"),
        (lambda p: p.with_suffix(".json").unlink(), "its check sum is missing; made anew"),
        *[
            (lambda p, note=note: p.with_suffix(".json").write_text(note), "its check sum cannot be read; made anew")
            for note in (
                "[]",
                "5",
                "{}",
                "null",
                '{"bytes": [], "crc32": 0}',
                '{"bytes": 1e999, "crc32": 0}',
                "[" * 10**5,
            )
        ],
        (lambda p: fifo(p.with_suffix(".json")), "its check sum is missing; made anew"),
        (lambda p: signed(p, pickle.dumps(print)), "the file is no array of frames .*; made anew"),
        (
            lambda p: signed(p, array_bytes(np.zeros((4, 9, 2, 3, 3)))),
            r"the file holds \(4, 9, 2, 3, 3\), .*; made anew",
        ),
        (lambda p: signed(p, array_bytes(np.array([print]))), "the file is no array of frames .*; made anew"),
    ],
)
def test_a_damaged_file_is_noticed_said_and_made_anew(cached, tmp_path, capsys, damage, message):
    read = frames(prepare(cached))
    damage(sorted((tmp_path / "cache").glob("*.npy"))[0])
    assert same(frames(prepare(cached)), read)
    assert re.search(message, unwrapped(capsys))
    prepare(cached)
    assert unwrapped(capsys) == ""


def fifo(path):
    path.unlink()
    os.mkfifo(path)


def signed(path, content):
    """Plant a file of somebody else's, with a correct check sum."""
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps({"bytes": len(content), "crc32": zlib.crc32(content)}))


def array_bytes(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def unwrapped(capsys):
    return capsys.readouterr().err.replace("\n", " ").strip()


def slow_frames(count, seconds):
    for i in range(count):
        time.sleep(seconds)
        yield np.full((2, 2, 3, 3), i, np.int16)


def fill(root, count, seconds):
    entries = [Entry(str(i), "0") for i in range(count)]
    return FrameCache(root).frames("part", {"T": 2}, entries, slow_frames(count, seconds), (2, 2, 3, 3))


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=fill, args=(tmp_path, 100, 0.02))
    process.start()
    while not list(tmp_path.glob("*.partial")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not list(tmp_path.glob("*.npy"))
    fill(tmp_path, 100, 0)
    assert not list(tmp_path.glob("*.partial"))
    (done,) = tmp_path.glob("*.npy")
    assert (np.load(done)[0, :, 0, 0, 0] == np.arange(100)).all()


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    host = platform.node()
    others = ["x.txt", f"x.{host}.abc.partial", f"a-b.{host}.{10**20}.partial", f"a-b.another.{os.getpid()}.partial"]
    for name in others:
        (tmp_path / name).write_text("mine")
    left = tmp_path / f"a-b.{host}.{dead_process()}.partial"
    left.write_text("")
    fill(tmp_path, 2, 0)
    assert not left.exists()
    assert [(tmp_path / name).read_text() for name in others] == ["mine"] * 4


def dead_process():
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    return process.pid


def test_what_is_written_never_follows_a_link(tmp_path):
    outside = tmp_path / "precious"
    outside.write_text("mine")
    cache = tmp_path / "cache"
    fill(cache, 2, 0)
    (done,) = cache.glob("*.npy")
    done.unlink()
    partial = done.with_suffix(f".{platform.node()}.{os.getpid()}.partial")
    for name in (partial, partial.with_suffix(".note")):
        name.symlink_to(outside)
    assert (fill(cache, 2, 0)[0, :, 0, 0, 0] == [0, 1]).all()
    assert outside.read_text() == "mine"


def limited_fill(root, size, message):
    """Fill a cache of 20 x 72 bytes while no file may grow beyond `size`, so that writing fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        fill(root, 20, 0)
    except UserError as error:
        message.send(str(error))


@pytest.mark.parametrize("size", [0, 10, 127, 128, 200, 1000, 1567])
def test_a_full_disk_is_an_error_in_words(tmp_path, size):
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=limited_fill, args=(tmp_path, size, send))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert receive.poll()
    assert re.fullmatch(rf"{tmp_path}/.*: cannot be written .*; raise the limit on a file's size .*", receive.recv())
    assert list(tmp_path.iterdir()) == []


def test_processes_side_by_side_make_one_whole_file(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fill, args=(tmp_path, 20, 0.005)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".npy"]
    fill(tmp_path, 20, 100)  # is not rebuilt, which would take 2,000 s


def test_an_error_in_between_leaves_no_file(cached, tmp_path, recordings):
    path = sorted(recordings.rglob("*.bin"))[-1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=path.name):
        prepare(cached)
    assert not [name for name in files(cached) if name.endswith("partial")]


def test_simulated_recordings_are_cached_too(tiny, tmp_path, monkeypatch):
    config = tiny.replace(
        data__events__source="simulated",
        data__events__test_per_class=1,
        data__events__train_per_class=1,
        data__events__validation_per_class=0,
        data__static__source="sklearn_digits",
        data__static__kwargs={},
        data__cache=str(tmp_path / "cache"),
    )
    made = frames(prepare(config))
    monkeypatch.setattr("tmkt.data.sources.simulated.SIMULATORS", {"saccades": None})
    assert same(frames(prepare(config)), made)


def test_prepare_fills_the_cache(cached, tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text(cached.dump())
    assert main(["data", "prepare", str(config)]) == 0
    assert "9 train, 6 validation, 9 test recordings" in capsys.readouterr().out
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3
    assert main(["data", "prepare", str(config), "data.cache=null"]) == 2
    assert "data.cache: null was given" in capsys.readouterr().err
