"""Checkpoints: whole or absent, damage found, nothing unpickled."""

import json
import random

import pytest
import torch

from tmkt import checkpoint as ckpt
from tmkt.errors import UserError

FILES = (ckpt.TASK, ckpt.OPTIMIZER, ckpt.STATE, ckpt.MANIFEST)


def checkpoint(step):
    tensors = {"w": torch.full((3,), float(step)), "n": torch.tensor(step)}
    return ckpt.Checkpoint(tensors, {"exp_avg.w": torch.rand(3)}, {"step": step, "seconds": 0.1 + step})


def save(folder, *numbers):
    for step in numbers:
        ckpt.save_checkpoint(folder, step, checkpoint(step))


def test_what_was_saved_is_loaded(tmp_path):
    saved = checkpoint(3)
    ckpt.save_checkpoint(tmp_path, 3, saved)
    loaded = ckpt.load_newest(tmp_path)
    for one, two in zip(saved[:2], loaded[:2], strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert loaded.state == saved.state
    assert sorted(path.name for path in (tmp_path / "step-00000003").iterdir()) == sorted(FILES)
    assert ckpt.load_newest(tmp_path / "none") is None


def test_the_newest_and_the_best_are_kept(tmp_path):
    (tmp_path / ".step-00000003.tmp").mkdir()
    save(tmp_path, 1, 2, 3, 4)
    ckpt.prune(tmp_path, 2, best=1)
    assert ckpt.steps(tmp_path) == [1, 3, 4]
    ckpt.prune(tmp_path, 2, best=4)
    assert ckpt.steps(tmp_path) == [3, 4]


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
    loaded = ckpt.load_newest(tmp_path)
    assert loaded.state["step"] == 1, f"not found at {place}"
    said = " ".join(capsys.readouterr().err.split())
    assert "step-00000002 is damaged:" in said
    assert "looking for the one before" in said
    assert ckpt.steps(tmp_path) == [1]


def test_a_checkpoint_of_damage_alone_is_an_error(tmp_path):
    save(tmp_path, 1)
    flip(tmp_path / "step-00000001" / ckpt.STATE, 0.5)
    with pytest.raises(UserError, match=r"every checkpoint under .* is damaged; delete that folder to begin anew"):
        ckpt.load_newest(tmp_path)
    assert ckpt.steps(tmp_path) == [1]


class Stopped(Exception):
    pass


def test_a_stop_while_writing_leaves_the_one_before_or_the_new_one(tmp_path, monkeypatch):
    flush, found = ckpt._flush, []
    for last in range(20):
        folder = tmp_path / str(last)
        save(folder, 1)
        calls = iter(range(last))

        def stops(path, calls=calls):
            if next(calls, None) is None:
                raise Stopped
            flush(path)

        monkeypatch.setattr(ckpt, "_flush", stops)
        try:
            save(folder, 2)
        except Stopped:
            found.append(ckpt.load_newest(folder).state["step"])
            monkeypatch.undo()
            save(folder, 2)  # goes on as if nothing had been
            assert ckpt.load_newest(folder).state["step"] == 2
        else:
            break
    assert found == [1] * 5 + [2]  # four files and their folder, then the rename
    assert len(found) == last


def test_nothing_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, ("raise SystemExit('ran')",)

    save(tmp_path, 1, 2)
    for file in (ckpt.TASK, ckpt.OPTIMIZER):
        torch.save({"w": Evil()}, tmp_path / "step-00000002" / file)
    path = tmp_path / "step-00000002"
    sums = {file: ckpt.hashlib.sha256((path / file).read_bytes()).hexdigest() for file in FILES[:3]}
    (path / ckpt.MANIFEST).write_text(json.dumps(sums))  # whoever plants it writes the checksums too
    with pytest.raises(ckpt.DamagedError, match="not a safetensors file"):
        ckpt.load_checkpoint(tmp_path, 2)


def test_records_beyond_the_checkpoint_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = '{"kind": "environment", "step": 0}\n{"kind": "train", "step": 4}\n'
    path.write_text(kept + '{"kind": "test", "step": 4}\n{"kind": "train", "step": 5}\n{"kind": "tr')
    ckpt.keep_records(path, 4)
    assert path.read_text() == kept
