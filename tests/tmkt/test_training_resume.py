"""Resume: a run that stopped at any point ends with exactly the weights of an uninterrupted one."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from tmkt.data import prepare
from tmkt.errors import UserError
from tmkt.training import checkpoint as ckpt
from tmkt.training.run_folder import RunFolder
from tmkt.training.trainer import Trainer, train


def records(run):
    """Return the records of training and scores in metrics.jsonl, without times."""
    records = [record for record in RunFolder(run).metrics() if record["kind"] != "environment"]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def assert_same_run(one, two):
    weights = [load_file(Path(run) / "model.safetensors") for run in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert records(one) == records(two)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(
    ("stop", "settings"),
    [
        (3, {}),
        (4, {}),
        (7, {}),
        (7, {"transfer__average": 0.9, "transfer__consistency_weight": 1.0}),
        (7, {"transfer__schedule": "loss", "transfer__ratio": 0.0, "transfer__ratio_end": 1.0}),
        (7, {"transfer__streams": "domains"}),
        *[(7, {"data__bridge": "camera", "data__bridge_place": place}) for place in ("events", "images", "between")],
        (7, {"data__augment": {"nda": True, "event_drop": 0.75, "cutmix": 0.4, "event_mix": 0.3, "time_mix": 0.3}}),
    ],
)
def test_a_resumed_run_equals_an_undisturbed_one(tiny, monkeypatch, stop, settings):
    tiny = tiny.replace(**settings)
    undisturbed = tiny.replace(out=tiny.out + "-whole")
    data = prepare(tiny)
    score = train(undisturbed, data)
    step = Trainer.train_step

    def breaks(self):
        if self.state.step == stop:
            raise Interrupted
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", breaks)
    with pytest.raises(Interrupted):
        train(tiny, data)
    monkeypatch.undo()
    torch.manual_seed(123)  # the process's earlier work must not matter
    assert train(tiny, data) == score
    assert_same_run(tiny.out, undisturbed.out)


def train_on_one_thread(config):
    torch.set_num_threads(1)
    train(config)


@pytest.mark.slow
def test_a_process_killed_at_random_moments_ends_in_the_same_weights(tiny, processes):
    steps, draw = 24, random.Random()
    config = tiny.replace(train__steps=steps, train__log_every=1, train__eval_every=7, train__checkpoint_every=3)
    whole = config.replace(out=tiny.out + "-whole")
    undisturbed = processes.Process(target=train_on_one_thread, args=(whole,))
    undisturbed.start()
    for moment in sorted(draw.sample(range(1, 3 * steps // 4), 3)):
        process = processes.Process(target=train_on_one_thread, args=(config,))
        process.start()
        while RunFolder(config.out).steps_done() < moment and process.is_alive():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (Path(config.out) / "model.safetensors").exists()
    last = processes.Process(target=train_on_one_thread, args=(config,))
    last.start()
    for process in (last, undisturbed):
        process.join()
        assert process.exitcode == 0
    assert_same_run(config.out, whole.out)
    assert not list(Path(config.out).rglob(".*.tmp"))


def test_a_damaged_checkpoint_is_said_and_the_run_goes_on_from_the_one_before(tiny, capsys):
    data, undisturbed = prepare(tiny), tiny.replace(out=tiny.out + "-whole")
    for config in (tiny, undisturbed):
        train(config, data)
    newest = Path(tiny.out) / "checkpoints/step-00000008/task.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    capsys.readouterr()
    train(tiny, data)
    said = " ".join(capsys.readouterr().err.split())
    assert "step-00000008 is damaged: task.safetensors" in said
    assert "resuming from step 6 of" in said
    assert_same_run(tiny.out, undisturbed.out)
    for path in (Path(tiny.out) / "checkpoints").glob("*/manifest.json"):
        path.unlink()
    with pytest.raises(UserError, match="every checkpoint under"):
        train(tiny, data)


def test_the_gradient_scaler_is_part_of_the_state(tiny):
    data = prepare(tiny)
    trainers = [Trainer(tiny, data) for _ in range(2)]
    for trainer, scale in zip(trainers, (512.0, 1.0), strict=True):  # Accelerate makes a scaler only on a GPU
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    trainers[0]._save()
    saved = trainers[1].folder.checkpoints.newest(trainers[1]._check)
    trainers[1]._resume(saved)
    assert trainers[1].accelerator.scaler.get_scale() == 512.0
    for scaler in (None, {}, {"scale": "512"}, {**saved.state["scaler"], "scale": None}):
        with pytest.raises(ckpt.DamagedError, match=r"state\.json lacks a value"):
            trainers[1]._check(saved._replace(state={**saved.state, "scaler": scaler}))


@pytest.fixture
def stopped(tiny, monkeypatch):
    """A run that stopped after step 5, and its data."""
    data, step = prepare(tiny), Trainer.train_step

    def breaks(self):
        if self.state.step == 5:
            raise Interrupted
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", breaks)
    with pytest.raises(Interrupted):
        train(tiny, data)
    monkeypatch.undo()
    return Path(tiny.out), data


STRAY = {
    "checkpoints/step-00000006.bak": b"x",
    "checkpoints/step-foo": b"x",
    "metrics.jsonl": b'{"kind": "train", "step": 2}\n123\n[]\nnull\n{}\n{"kind": "train", "step": "2"}\n\xff\xfe',
    "checkpoints/step-00000004/other": b"x",
}


@pytest.mark.parametrize("name", STRAY)
def test_what_lies_about_does_not_end_a_resume(tiny, stopped, name):
    out, data = stopped
    (out / name).write_bytes(STRAY[name])
    train(tiny, data)
    train(tiny.replace(out=tiny.out + "-whole"), data)
    weights = [load_file(run / "model.safetensors") for run in (out, Path(tiny.out + "-whole"))]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


EDITS = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "binary": lambda path: path.write_bytes(b"\x80\x81\xfe"),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "line": lambda path: path.write_text(
        path.read_text().replace("lr: 0.002", "lr: 0.1").replace('"seed": 42', '"seed": 1')
    ),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", ["config.yaml", "split.json"])
def test_an_edited_file_is_named_and_never_taken(tiny, stopped, name, edit):
    out, data = stopped
    EDITS[edit](out / name)
    with pytest.raises(UserError, match=rf"^out: .*({name}|other settings)"):
        train(tiny, data)
    assert RunFolder(out).checkpoints.steps() == [2, 4]


def test_metrics_that_are_no_file_are_named(tiny, stopped):
    out, data = stopped
    (out / "metrics.jsonl").unlink()
    (out / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=rf"out: {out}: metrics\.jsonl is no regular file; remove it"):
        train(tiny, data)


@pytest.mark.parametrize("change", [{"seed": 7}, {"train__lr": 0.1}, {"transfer__mag_weight": 0.0}])
def test_a_checkpoint_of_another_run_is_refused(tiny, stopped, change):
    out, data = stopped
    other = tiny.replace(out=tiny.out + "-other", **change)
    train(other)
    shutil.copytree(Path(other.out) / "checkpoints/step-00000006", out / "checkpoints/step-00000006")
    with pytest.raises(UserError, match=r"the checkpoint of step 6 in .* is of another run"):
        train(tiny, data)
    assert RunFolder(out).checkpoints.steps() == [2, 4, 6]  # nothing of another run is deleted
    shutil.copy(Path(other.out) / "config.yaml", out)  # also with the other run's configuration
    with pytest.raises(UserError, match="other settings"):
        train(tiny, data)


def test_a_configuration_edited_on_both_sides_is_refused(tiny, stopped):
    out, data = stopped
    edited = tiny.replace(train__lr=0.1)
    (out / "config.yaml").write_text(edited.dump())
    with pytest.raises(UserError, match="is of another run, of other settings or other data"):
        train(edited, data)


WRONG = {
    "state": [b"{}", b"[]"],
    "task": [safetensors.torch.save({}), safetensors.torch.save({"w": torch.zeros(2)})],
    "optimizer": [safetensors.torch.save({}), safetensors.torch.save({"exp_avg.x": torch.zeros(2)})],
}


@pytest.mark.parametrize(("file", "content"), [(file, c) for file, contents in WRONG.items() for c in contents])
def test_wrong_content_under_right_checksums_is_passed_over(tiny, stopped, rewrite, file, content):
    out, data = stopped
    rewrite(out / "checkpoints", 4, **{file: content})
    train(tiny, data)
    train(tiny.replace(out=tiny.out + "-whole"), data)
    assert_same_run(tiny.out, tiny.out + "-whole")


@pytest.mark.parametrize("content", [b'{"step": 4}', b'{"step": 4, "run": 3}', b'{"step": 4, "run": "0123"}'])
def test_a_state_that_does_not_name_this_run_is_refused(tiny, stopped, rewrite, content):
    out, data = stopped
    rewrite(out / "checkpoints", 4, state=content)
    with pytest.raises(UserError, match="is of another run"):
        train(tiny, data)


def test_tensors_of_another_type_are_not_taken(tiny, stopped, rewrite, capsys):
    out, data = stopped
    path = out / "checkpoints/step-00000004" / ckpt.OPTIMIZER
    tensors = {name: tensor.to(torch.int64) for name, tensor in load_file(path).items()}
    rewrite(out / "checkpoints", 4, optimizer=safetensors.torch.save(tensors))
    train(tiny, data)
    assert "step-00000004 is damaged: optimizer.safetensors: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"x", "cut", "flip", "pickle", "lacks", "other"])
def test_a_damaged_teacher_is_named(tiny, content):
    config = tiny.replace(transfer__method="ckd", transfer__teacher__steps=1, transfer__teacher__batch=4)
    data = prepare(config)
    train(config, data)
    path = Path(config.out) / "teacher.safetensors"
    whole = path.read_bytes()
    tensors = load_file(path)
    other = {**tensors, "logits": tensors["logits"] + 1}
    contents = {
        "cut": whole[:-9],
        "flip": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
        "pickle": b"\x80\x04K\x01.",
        "lacks": safetensors.torch.save({"features": tensors["features"]}),
        "other": safetensors.torch.save(other),
    }
    path.write_bytes(contents.get(content, content))
    with pytest.raises(
        UserError, match=r"teacher\.safetensors.*; delete it, and the same command trains the teacher anew"
    ):
        train(config, data)


@pytest.mark.parametrize("source", ["recordings", "images"])
def test_data_of_another_content_is_noticed_and_named(tiny, recordings, tmp_path, source):
    images = tmp_path / "images"
    for label in range(3):
        (images / str(label)).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((16, 16, 3), 40 * label + i, np.uint8)).save(images / str(label) / f"{i}.png")
    config = tiny.replace(data__static__source="folder", data__static__root=str(images), data__static__kwargs={})
    train(config)
    train(config)
    if source == "recordings":
        split = RunFolder(config.out).split()
        name = split["train"][0]
        shutil.copy(recordings / f"{split['test'][0]}.bin", recordings / f"{name}.bin")
        expected = rf"1 of another content \(train {name}\)"
    else:
        Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(images / "1" / "2.png")
        expected = r"1 of another content \(static_images 6\)"
    with pytest.raises(UserError, match=f"the data has changed since .*: {expected}; choose another out="):
        train(config)
    (Path(config.out) / "split.json").unlink()  # its content is in the checkpoints too
    with pytest.raises(UserError, match="is of another run, of other settings or other data"):
        train(config)


def test_a_run_that_was_moved_or_is_named_otherwise_goes_on(tiny, stopped, monkeypatch):
    out, data = stopped
    whole = tiny.replace(out=tiny.out + "-whole")
    train(whole, data)
    moved = out.with_name("a name with spaces, " + "long " * 30)
    out.rename(moved)
    monkeypatch.chdir(moved.parent)
    config = tiny.replace(out=moved.name)
    train(config, data)
    assert_same_run(moved, whole.out)
    assert train(config.replace(out=str(moved)), data).total == 9


def test_a_lock_deleted_by_hand_stops_the_first_of_two(tiny, monkeypatch):
    data, step, out = prepare(tiny), Trainer.train_step, Path(tiny.out)

    def intrudes(self):
        if self.state.step == 5:
            (out / ".lock").unlink()
            intruder.acquire(blocking=False)
        return step(self)

    intruder = FileLock(out / ".lock")
    monkeypatch.setattr(Trainer, "train_step", intrudes)
    with pytest.raises(UserError, match="another process has begun"):
        train(tiny, data)
    intruder.release()
    assert RunFolder(out).checkpoints.steps() == [2, 4]
