"""Files of a run's folder: no write goes through a link, a full disk gives a clear message, and reads are checked."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tmkt import atomic_files, tensor_files
from tmkt.analysis.grid import make_grid, run_grid
from tmkt.analysis.report import write_report
from tmkt.analysis.results import Results, Run
from tmkt.cli import main
from tmkt.data import prepare
from tmkt.errors import DamagedError, UserError
from tmkt.training.lock import FolderLock
from tmkt.training.tensorboard import Curves
from tmkt.training.trainer import train

ROOT = Path(__file__).parents[2]
WRITTEN = ("config.yaml", "split.json", "predictions.jsonl", "model.safetensors")


@pytest.fixture
def outside(tmp_path):
    """A file and a folder outside the run's, which no run may change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("as it was\n")
    return folder


def untouched(outside):
    return [(p.name, p.read_text()) for p in outside.iterdir()] == [("precious", "as it was\n")]


@pytest.mark.parametrize("name", [*(f".{name}.tmp" for name in WRITTEN), "predictions.jsonl", "model.safetensors"])
@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_planted_link_in_place_of_a_file_is_replaced(tiny, outside, name, link):
    place = atomic_files.make_folder(Path(tiny.out)) / name
    {"symbolic": place.symlink_to, "hard": place.hardlink_to}[link](outside / "precious")
    train(tiny)
    assert untouched(outside)
    assert not place.is_symlink()


@pytest.mark.parametrize("name", [".metrics.jsonl.tmp", "metrics.jsonl"])
def test_a_link_planted_between_two_starts_is_replaced(tiny, outside, name):
    data, place = prepare(tiny), Path(tiny.out) / name
    train(tiny, data)
    place.unlink(missing_ok=True)
    place.symlink_to(outside / "precious")
    train(tiny, data)
    assert untouched(outside)
    assert not place.is_symlink()


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard"])
def test_a_folder_that_is_a_link_is_refused(tiny, outside, name):
    (atomic_files.make_folder(Path(tiny.out)) / name).symlink_to(outside)
    with pytest.raises(UserError, match=f"{name}: is a link, and a run writes through none; remove it"):
        train(tiny)
    assert untouched(outside)


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl"])
def test_a_dangling_link_makes_no_file_elsewhere(tiny, outside, name):
    (atomic_files.make_folder(Path(tiny.out)) / name).symlink_to(outside / "new")
    with pytest.raises(UserError, match=name):
        train(tiny)
    assert untouched(outside)


@pytest.mark.parametrize("command", ["diagnose", "profile"])
def test_no_picture_is_drawn_through_a_link(tiny, outside, capsys, command):
    train(tiny.replace(train__steps=2))
    (Path(tiny.out) / command).symlink_to(outside)
    assert main([command, tiny.out]) == 2
    assert f"{command}: is a link, and a run writes through none" in capsys.readouterr().err
    assert untouched(outside)


@pytest.fixture
def cells(tiny_settings, tmp_path):
    """A grid of one run."""
    (tmp_path / "empty.yaml").write_text("{}")
    place = {"seeds": [1], "per_class": [2], "out": tmp_path / "grid"}
    return make_grid(tmp_path / "empty.yaml", tiny_settings, methods=["tmkt"], **place)


@pytest.mark.parametrize("name", ["runs", "runs/tmkt", "runs/tmkt/per_class_2/seed_1"])
def test_no_part_of_a_grid_is_a_link(cells, tmp_path, outside, name):
    *above, last = name.split("/")
    (atomic_files.make_folder(tmp_path / "grid", *above) / last).symlink_to(outside)
    with pytest.raises(UserError, match=f"{name}: is a link, and a run writes through none; remove it"):
        run_grid(cells, 1)
    assert untouched(outside)


def test_the_figures_of_a_grid_are_no_link(cells, tmp_path, outside):
    (atomic_files.make_folder(tmp_path / "grid") / "figures").symlink_to(outside)
    failed = Results([Run("tmkt", 2, 1, "x", error="x")], [], [])
    with pytest.raises(UserError, match="figures: is a link"):
        write_report(tmp_path / "grid", cells, failed)
    assert untouched(outside)


def test_no_log_is_written_through_a_link(cells, outside):
    cells[0].make_folder()
    cells[0].folder.log.symlink_to(outside / "precious")
    with pytest.raises(UserError, match=r"train\.log: cannot be written .*; it is a link"):
        run_grid(cells, 1)
    assert untouched(outside)


def test_links_in_the_folder_of_checkpoints_lose_nothing_outside(tiny, outside):
    folder = atomic_files.make_folder(Path(tiny.out), "checkpoints")
    for name in (".step-00000002.tmp", "step-00000004"):
        (folder / name).symlink_to(outside)
    with pytest.raises(UserError, match="every checkpoint under"):
        train(tiny)
    (folder / "step-00000004").unlink()
    train(tiny)
    assert untouched(outside)


def test_a_file_to_append_to_has_one_name(tmp_path, outside):
    (tmp_path / "log").hardlink_to(outside / "precious")
    with pytest.raises(UserError, match="has a second name elsewhere"):
        atomic_files.append(tmp_path / "log", "x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe"):
        atomic_files.append(tmp_path / "pipe", "x")
    assert untouched(outside)


def test_a_file_is_read_only_if_it_is_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "large").write_bytes(bytes(11))
    for name in ("pipe", "zero", "folder", "loop", "large", "none"):
        with pytest.raises(DamagedError, match=name):
            atomic_files.read(tmp_path / name, limit=10)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff", b"{", b"[]", b"null", b'{"a": 1' + b"0" * 5000 + b"}"])
def test_what_is_no_json_object_is_damage(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(DamagedError, match=r"a\.json is"):
        atomic_files.read_object(tmp_path / "a.json")


def test_tensors_are_checked_against_their_own_digest(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.rand(3, 2), "n": torch.tensor(3), "h": torch.rand(2).bfloat16(), "e": torch.empty(0, 2)}
    tensor_files.write_tensors(path, tensors, "run")
    found, run = tensor_files.read_tensors(path)
    assert run == "run"
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedError, match=r"a\.safetensors is damaged: its tensors have not the checksum"):
        tensor_files.read_tensors(path)
    for content in (b"", data[:-1], b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match="it is not a safetensors file"):
            tensor_files.read_tensors(path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch, code, call):
    path = tmp_path / "a.txt"
    atomic_files.write_text(path, "old")

    def fails(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(UserError, match=rf"a\.txt: cannot be written \({os.strerror(code)}\); "):
        atomic_files.write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]  # nothing remains that takes space


@pytest.mark.parametrize("part", ["metrics.jsonl", "step-0000000", "tensorboard", "model.safetensors", "config.yaml"])
def test_a_full_disk_is_one_error_that_names_the_file_and_the_run_goes_on(tiny, monkeypatch, part):
    data, write = prepare(tiny), os.write

    def full(descriptor, content):
        if part in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=rf"{part}.*: cannot be written \(No space left on device\); free space"):
        train(tiny, data)
    monkeypatch.undo()
    assert train(tiny, data) == train(tiny.replace(out=tiny.out + "-whole"), data)


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_one_line(tiny_settings, tmp_path):
    """A real write fails in the system: RLIMIT_FSIZE is below the size of a checkpoint."""
    (tmp_path / "empty.yaml").write_text("{}")
    code = "import sys; from tmkt.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(tmp_path / "empty.yaml"), *tiny_settings],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)),
    )
    said = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert "step-00000002: cannot be written (File too large); raise the limit" in said[-1]
    assert sum("File too large" in line for line in said) == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_a_lock_that_was_deleted_is_taken_again_or_the_run_stops(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    first.path.unlink()
    first.check()  # no other process has taken it
    assert not second.acquire()
    first.path.unlink()
    assert second.acquire()
    with pytest.raises(UserError, match=r"\.lock: was deleted, and another process has begun"):
        first.check()


def test_curves_are_what_tensorboard_reads(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, values in ((1, {1: 0.5, 2: 0.25, 3: 9.0}), (3, {3: 0.125})):
        curves = Curves(tmp_path, first)
        for step, value in values.items():
            curves.add(step, {"train/loss": value})
        curves.close()
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in read.Scalars("train/loss")] == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_a_folder_that_cannot_be_made_is_one_line(tiny_settings, tmp_path, capsys):
    (tmp_path / "empty.yaml").write_text("{}")
    (tmp_path / "run").write_text("a file")
    assert main(["train", str(tmp_path / "empty.yaml"), *tiny_settings]) == 2
    assert capsys.readouterr().err == (
        f"tmkt: {tmp_path / 'run'}: cannot be written (File exists); put that right, or choose another folder\n"
    )


def test_records_skip_what_is_none(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n123\n[]\nnull\n\xff\xfe\n{"kind": "tr')
    assert atomic_files.read_records(path) == [json.loads('{"kind": "train", "step": 1}')]
