"""Checkpoints are complete or absent, reveal damage, and unpickle nothing."""

import errno
import json
import os
import random
from pathlib import Path

import pytest
import torch

from tmkt import atomic_files
from tmkt.errors import UserError
from tmkt.training import checkpoint as ckpt

FILES = (ckpt.TASK, ckpt.OPTIMIZER, ckpt.STATE, ckpt.MANIFEST)


def checkpoint(step):
    tensors = {"w": torch.full((3,), float(step)), "n": torch.tensor(step)}
    return ckpt.Checkpoint(tensors, {"exp_avg.w": torch.rand(3)}, {"step": step, "seconds": 0.1 + step})


def save(folder, *numbers):
    for step in numbers:
        ckpt.Checkpoints(folder).save(step, checkpoint(step))


def test_what_was_saved_is_loaded(tmp_path):
    saved = checkpoint(3)
    ckpt.Checkpoints(tmp_path).save(3, saved)
    loaded = ckpt.Checkpoints(tmp_path).newest()
    for one, two in zip(saved[:2], loaded[:2], strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert loaded.state == saved.state
    assert sorted(path.name for path in (tmp_path / "step-00000003").iterdir()) == sorted(FILES)
    assert ckpt.Checkpoints(tmp_path / "none").newest() is None


def test_the_newest_and_the_best_are_kept(tmp_path):
    (tmp_path / ".step-00000003.tmp").mkdir()
    save(tmp_path, 1, 2, 3, 4)
    ckpt.Checkpoints(tmp_path).prune(2, best=1)
    assert ckpt.Checkpoints(tmp_path).steps() == [1, 3, 4]
    ckpt.Checkpoints(tmp_path).prune(2, best=4)
    assert ckpt.Checkpoints(tmp_path).steps() == [3, 4]


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x10
    path.write_bytes(data)


def cut(path, place):
    path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)])


DAMAGE = {"flipped": flip, "cut": cut, "missing": lambda path, _: path.unlink()}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used(tmp_path, capsys, file, damage):
    save(tmp_path, 1, 2)
    place = random.Random().random()
    DAMAGE[damage](tmp_path / "step-00000002" / file, place)
    loaded = ckpt.Checkpoints(tmp_path).newest()
    assert loaded.state["step"] == 1, f"not found at {place}"
    said = " ".join(capsys.readouterr().err.split())
    assert "step-00000002 is damaged:" in said
    assert "looking for the one before" in said
    assert ckpt.Checkpoints(tmp_path).steps() == [1]


def test_a_checkpoint_of_damage_alone_is_an_error(tmp_path):
    save(tmp_path, 1)
    flip(tmp_path / "step-00000001" / ckpt.STATE, 0.5)
    with pytest.raises(UserError, match=r"every checkpoint under .* is damaged; delete that folder to begin anew"):
        ckpt.Checkpoints(tmp_path).newest()
    assert ckpt.Checkpoints(tmp_path).steps() == [1]


class Stopped(Exception):
    pass


def test_a_stop_while_writing_leaves_the_one_before_or_the_new_one(tmp_path, monkeypatch):
    flush = atomic_files.flush

    def save_and_stop(folder, flushes):
        calls = iter(range(flushes))

        def stops(path):
            if next(calls, None) is None:
                raise Stopped
            flush(path)

        with monkeypatch.context() as patch:
            patch.setattr(atomic_files, "flush", stops)
            save(folder, 2)

    for flushes, found in enumerate([1] * 5 + [2]):  # four files and their folder, then the rename
        folder = tmp_path / str(flushes)
        save(folder, 1)
        with pytest.raises(Stopped):
            save_and_stop(folder, flushes)
        assert ckpt.Checkpoints(folder).newest().state["step"] == found
        save(folder, 2)  # continues as if nothing had happened
        assert ckpt.Checkpoints(folder).newest().state["step"] == 2
    save(tmp_path / "all", 1)
    save_and_stop(tmp_path / "all", 6)


def test_nothing_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, ("raise SystemExit('ran')",)

    save(tmp_path, 1, 2)
    for file in (ckpt.TASK, ckpt.OPTIMIZER):
        torch.save({"w": Evil()}, tmp_path / "step-00000002" / file)
    path = tmp_path / "step-00000002"
    sums = {file: ckpt.hashlib.sha256((path / file).read_bytes()).hexdigest() for file in FILES[:3]}
    sizes = {file: (path / file).stat().st_size for file in FILES[:3]}
    # Whoever plants code writes the checksums too.
    (path / ckpt.MANIFEST).write_text(json.dumps({**sums, "bytes": sizes}))
    with pytest.raises(ckpt.DamagedError, match="not a safetensors file"):
        ckpt.Checkpoints(tmp_path).load(2)


@pytest.mark.parametrize("name", ["step-00000006.bak", "step-00000006 (copy)", "step-foo", "step-00000002~", "step-3"])
def test_what_else_lies_beside_checkpoints_is_left_alone(tmp_path, name):
    save(tmp_path, 1, 2)
    (tmp_path / name).mkdir()
    assert ckpt.Checkpoints(tmp_path).newest().state["step"] == 2
    ckpt.Checkpoints(tmp_path).prune(1, best=None)
    assert ckpt.Checkpoints(tmp_path).steps() == [2]
    assert (tmp_path / name).is_dir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def endless(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def nested(path):
    path.write_bytes(b"[" * 100_000)


def large(path):
    os.truncate(path, 1 << 40)  # takes no space on the disk


STRANGE = {
    "pipe": pipe,
    "endless": endless,
    "nested": nested,
    "large": large,
    "folder": lambda p: (p.unlink(), p.mkdir()),
}


@pytest.mark.parametrize("fault", STRANGE)
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_none_is_damage(tmp_path, file, fault):
    save(tmp_path, 1, 2)
    STRANGE[fault](tmp_path / "step-00000002" / file)
    assert ckpt.Checkpoints(tmp_path).newest().state["step"] == 1
    assert ckpt.Checkpoints(tmp_path).steps() == [1]
    assert os.path.lexists(tmp_path / "step-00000002.damaged" / file)  # moved aside, not deleted


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_a_checkpoint_that_merely_cannot_be_read_stops_the_run_and_stays(tmp_path, monkeypatch, code):
    save(tmp_path, 1, 2)
    read = Path.read_bytes

    def fails(path):
        if path.parent.name == "step-00000002" and path.name == ckpt.TASK:
            raise OSError(code, os.strerror(code), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(UserError, match=rf"task\.safetensors: cannot be read \({os.strerror(code)}\); it was left"):
        ckpt.Checkpoints(tmp_path).newest()
    monkeypatch.undo()
    assert ckpt.Checkpoints(tmp_path).newest().state["step"] == 2


@pytest.mark.parametrize("state", [b"[]", b"null", b"{}", b'{"step": 1000000000}', b'{"step": "2"}', b"[" * 100_000])
def test_a_state_of_another_step_or_kind_is_damage(tmp_path, rewrite, state):
    save(tmp_path, 1, 2)
    rewrite(tmp_path, 2, state=state)
    assert ckpt.Checkpoints(tmp_path).newest().state["step"] == 1


def test_tensors_of_other_names_shapes_or_types_are_damage():
    task = torch.nn.Linear(3, 2)
    good = {f"{kind}.{n}": p.detach() for n, p in task.named_parameters() for kind in ("exp_avg", "exp_avg_sq")}
    good |= {f"step.{name}": torch.tensor(1.0) for name, _ in task.named_parameters()}
    ckpt.check_moments(good, task, 6)
    for change in (
        {"exp_avg.bias": torch.zeros(3)},
        {"step.bias": torch.tensor(1)},
        {"exp_avg.bias": torch.zeros(2).int()},
    ):
        with pytest.raises(ckpt.DamagedError, match=r"optimizer\.safetensors: .*bias is .*, expected"):
            ckpt.check_moments({**good, **change}, task, 6)
    with pytest.raises(ckpt.DamagedError, match=r"holds an unknown exp_avg\.other"):
        ckpt.check_moments({**good, "exp_avg.other": torch.zeros(2)}, task, 7)
    with pytest.raises(ckpt.DamagedError, match=r"holds 0 tensors, state\.json says 6"):
        ckpt.check_moments({}, task, 6)
    with pytest.raises(ckpt.DamagedError, match="lacks bias"):
        ckpt.check_tensors({"weight": task.weight}, task.state_dict(), ckpt.TASK)
