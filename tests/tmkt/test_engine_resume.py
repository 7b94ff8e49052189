"""Resume: a run that was stopped anywhere ends in the very weights of an undisturbed one."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tmkt import checkpoint as ckpt
from tmkt.data import prepare
from tmkt.engine import Trainer, train
from tmkt.errors import UserError


def records(run):
    """What metrics.jsonl says of training and scores, without times."""
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines if line["kind"] != "environment"]


def assert_same_run(one, two):
    weights = [load_file(Path(run) / "model.safetensors") for run in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert records(one) == records(two)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_a_resumed_run_equals_an_undisturbed_one(tiny, monkeypatch, stop):
    undisturbed = tiny.replace(out=tiny.out + "-whole")
    data = prepare(tiny)
    score = train(undisturbed, data)
    step = Trainer._train_step

    def breaks(self):
        if self.at.step == stop:
            raise Interrupted
        return step(self)

    monkeypatch.setattr(Trainer, "_train_step", breaks)
    with pytest.raises(Interrupted):
        train(tiny, data)
    monkeypatch.undo()
    torch.manual_seed(123)  # what the process did before must not matter
    assert train(tiny, data) == score
    assert_same_run(tiny.out, undisturbed.out)


def steps_done(run):
    try:
        lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
        return max(json.loads(line)["step"] for line in lines)
    except (OSError, ValueError):  # not there yet, or a line is being written
        return 0


def train_on_one_thread(config):
    torch.set_num_threads(1)
    train(config)


def test_a_process_killed_at_random_moments_ends_in_the_same_weights(tiny, processes):
    steps, draw = 24, random.Random()
    config = tiny.replace(train__steps=steps, train__log_every=1, train__eval_every=7, train__checkpoint_every=3)
    whole = config.replace(out=tiny.out + "-whole")
    undisturbed = processes.Process(target=train_on_one_thread, args=(whole,))
    undisturbed.start()
    for moment in sorted(draw.sample(range(1, 3 * steps // 4), 3)):
        process = processes.Process(target=train_on_one_thread, args=(config,))
        process.start()
        while steps_done(config.out) < moment and process.is_alive():
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
    assert "going on from step 6" in said
    assert_same_run(tiny.out, undisturbed.out)
    for path in (Path(tiny.out) / "checkpoints").glob("*/manifest.json"):
        path.unlink()
    with pytest.raises(UserError, match="every checkpoint under"):
        train(tiny, data)


def test_the_gradient_scaler_is_part_of_the_state(tiny):
    data = prepare(tiny)
    trainers = [Trainer(tiny, data) for _ in range(2)]
    for trainer, scale in zip(trainers, (512.0, 1.0), strict=True):  # Accelerate makes one on a GPU alone
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    trainers[0]._save()
    trainers[1]._resume(ckpt.load_newest(trainers[1].checkpoints))
    assert trainers[1].accelerator.scaler.get_scale() == 512.0
