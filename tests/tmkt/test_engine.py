"""The training loop: learning, files of a run, resume after SIGKILL, evaluation."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tmkt import checkpoint as ckpt
from tmkt.config import load_config
from tmkt.data import prepare
from tmkt.engine import Trainer, learning_rate, step_seed, train
from tmkt.errors import UserError
from tmkt.evaluation import evaluate, evaluate_run, load_run
from tmkt_kernels import _dispatch

ROOT = Path(__file__).parents[2]


def metrics(run):
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def test_a_run_learns_and_leaves_its_files(tiny):
    config = tiny.replace(train__steps=60, train__lr=0.01, train__checkpoint_every=30, transfer__method="events_only")
    score = train(config)
    assert score.total == 9
    assert score.accuracy >= 7 / 9  # the classes lie on separate rows
    out = Path(config.out)
    records = metrics(out)
    assert records[0]["kind"] == "environment"
    assert records[0]["backends"]["lif"] in ("native", "reference")
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(2, 61, 2))
    assert [r["step"] for r in records if r["kind"] == "validation"] == list(range(4, 61, 4))
    assert [r for r in records if r["kind"] == "test"] == [records[-1]]  # once, at the end
    assert records[-1]["correct"] == score.correct
    assert load_config(out / "config.yaml") == config
    assert list((out / "tensorboard").iterdir())
    assert not list(out.rglob(".*.tmp"))
    split = json.loads((out / "split.json").read_text())
    assert len(split["test"]) == 9


@pytest.mark.parametrize("method", ["tmkt", "sliding", "finetune"])
def test_every_method_runs_and_its_run_can_be_evaluated(tiny, recordings, method):
    score = train(tiny.replace(transfer__method=method))
    assert evaluate_run(tiny.out) == score
    others = evaluate_run(tiny.out, recordings)
    assert others.total == 24


def test_evaluation_does_not_depend_on_batches_or_training_mode(tiny, monkeypatch):
    data = prepare(tiny)
    train(tiny, data)
    _, model, _ = load_run(tiny.out)
    whole = evaluate(model.train(), data.test, 1.0, torch.device("cpu"))
    assert model.training
    monkeypatch.setattr("tmkt.evaluation.EVAL_BATCH", 2)
    parts = evaluate(model, data.test, 1.0, torch.device("cpu"))
    assert (whole.correct, whole.total) == (parts.correct, parts.total)
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_resumed_run_equals_an_undisturbed_one_bit_for_bit(tiny, monkeypatch, stop):
    undisturbed = tiny.replace(out=tiny.out + "-whole")
    score = train(undisturbed)
    data = prepare(tiny)
    step = Trainer._train_step

    def breaks(self):
        if self.step == stop:
            raise Interrupted
        return step(self)

    monkeypatch.setattr(Trainer, "_train_step", breaks)
    with pytest.raises(Interrupted):
        train(tiny, data)
    monkeypatch.undo()
    torch.manual_seed(123)  # what the process did before must not matter
    assert train(tiny) == score
    one, two = (load_file(Path(run.out) / "model.safetensors") for run in (tiny, undisturbed))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    steps = [
        [(r["kind"], r["step"], r.get("loss")) for r in metrics(c.out) if r["kind"] != "environment"]
        for c in (tiny, undisturbed)
    ]
    assert steps[0] == steps[1]


def test_a_killed_process_goes_on_to_the_same_weights(tiny_settings, tmp_path):
    settings = [*tiny_settings, f"out={tmp_path / 'killed'}", "train.steps=60", "train.checkpoint_every=5"]
    (tmp_path / "empty.yaml").write_text("{}")
    command = [sys.executable, "-m", "tmkt", "train", str(tmp_path / "empty.yaml"), *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ckpt.checkpoints(tmp_path / "killed/checkpoints") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    saved = ckpt.checkpoints(tmp_path / "killed/checkpoints")
    assert saved
    assert not (tmp_path / "killed/model.safetensors").exists()
    resumed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "going on from step" in resumed.stderr
    whole = [*settings, f"out={tmp_path / 'whole'}"]
    subprocess.run([*command[:5], *whole], cwd=ROOT, env=environment, capture_output=True, check=True)
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("killed", "whole"))
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_a_finished_run_started_again_trains_no_further(tiny):
    score = train(tiny)
    weights = (Path(tiny.out) / "model.safetensors").read_bytes()
    assert train(tiny) == score
    assert (Path(tiny.out) / "model.safetensors").read_bytes() == weights
    assert [r["kind"] for r in metrics(tiny.out)].count("test") == 1


def test_resume_never_refuses_and_leaves_the_run_alone(tiny):
    train(tiny)
    before = (Path(tiny.out) / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="holds a run already; choose another out="):
        train(tiny.replace(resume="never"))
    assert (Path(tiny.out) / "metrics.jsonl").read_bytes() == before


def test_other_settings_or_other_data_do_not_go_on_in_the_same_folder(tiny, recordings):
    train(tiny)
    with pytest.raises(UserError, match=r"other settings \('steps: 8', now 'steps: 10'\)"):
        train(tiny.replace(train__steps=10))
    next((recordings / "0").iterdir()).unlink()
    with pytest.raises(UserError, match="the data has changed"):
        train(tiny)


def test_checkpoints_are_kept_to_the_newest_and_a_half_written_one_is_no_checkpoint(tmp_path):
    weights = {"w": torch.ones(2)}
    (tmp_path / ".step-00000003.tmp").mkdir()
    for step in (1, 2, 3):
        ckpt.save_checkpoint(tmp_path, step, weights, {"step": step}, keep=2)
    assert [path.name for path in ckpt.checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    (tmp_path / ".step-00000004.tmp").mkdir()
    loaded, state = ckpt.load_checkpoint(ckpt.checkpoints(tmp_path)[-1])
    assert torch.equal(loaded["w"], weights["w"])
    assert state == {"step": 3}


def test_records_beyond_the_checkpoint_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = '{"kind": "environment", "step": 0}\n{"kind": "train", "step": 4}\n'
    path.write_text(kept + '{"kind": "test", "step": 4}\n{"kind": "train", "step": 5}\n{"kind": "tr')
    ckpt.keep_records(path, 4)
    assert path.read_text() == kept


def test_learning_rate_warms_up_falls_to_zero_and_starts_anew_in_each_phase():
    rates = [learning_rate(k, 1.0, 2, [10, 10]) for k in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[:10] == rates[10:]
    assert rates[2:10] == sorted(rates[2:10], reverse=True)
    assert 0 < rates[9] < 0.05
    assert learning_rate(0, 1.0, 0, [1]) == 1.0


def test_steps_and_seeds_have_unrelated_generators():
    assert len({step_seed(seed, step) for seed in range(10) for step in range(10)}) == 100


def test_a_loss_that_is_not_finite_stops_the_run(tiny):
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step"):
        train(tiny.replace(train__lr=1e30))


def test_an_unfinished_run_cannot_be_evaluated(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml is missing; expected the folder of a finished"):
        load_run(tmp_path)


def test_a_backend_that_cannot_serve_is_an_error_before_loading(tiny, monkeypatch):
    # The tests may run Triton's interpreter, so the reason is planted: only its way to the user is tested here.
    for device in ("cpu", "cuda"):
        monkeypatch.setitem(_dispatch._PROBLEMS, ("triton", device), "there is no such device; take another")
    with pytest.raises(UserError, match=r"model\.neuron: lif: backend 'triton' cannot serve .* no such device"):
        train(tiny.replace(model__neuron__backend="triton", data__events__root="not even looked at"))
