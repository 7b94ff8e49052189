"""Ctrl-C, SIGTERM and SIGKILL: the state that is saved, the messages, and no process left over."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tmkt.training.run_folder import RunFolder
from tmkt.training.signals import noted_signals
from tmkt.training.trainer import train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SLOW = """
import sys, time
import tmkt.training.trainer as trainer
from tmkt.cli import main
step = trainer.Trainer.train_step
def slow(self):
    print("step", self.state.step, flush=True)
    time.sleep({seconds})
    return step(self)
trainer.Trainer.train_step = slow
sys.exit(main(["train", *sys.argv[1:]]))
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def start(tmp_path, tiny_settings):
    """Start a process that trains slowly, and wait until its `steps`-th step."""
    (tmp_path / "empty.yaml").write_text("{}")
    started = []

    def begin(steps, seconds=0.2, *more):
        code = SLOW.format(seconds=seconds)
        command = [sys.executable, "-c", code, str(tmp_path / "empty.yaml"), *tiny_settings, *more]
        process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        for _ in range(steps):
            process.stdout.readline()
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def lines(text):
    return text.strip().splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_step_that_was_reached_is_saved(start, tiny, number):
    process = start(4, 1.5, "train.checkpoint_every=100", "train.eval_every=8")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    step = int(re.fullmatch(r"tmkt: interrupted; .* to resume from step (\d+)", lines(said)[-1])[1])
    assert step in (4, 5)
    assert RunFolder(tiny.out).checkpoints.steps() == [step]
    config = tiny.replace(train__checkpoint_every=100, train__eval_every=8)
    train(config)
    train(config.replace(out=tiny.out + "-whole"))
    weights = [load_file(Path(run) / "model.safetensors") for run in (tiny.out, tiny.out + "-whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_second_ctrl_c_ends_at_once_and_says_what_is_saved(start, tiny):
    process = start(1, 60)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 30
    assert process.returncode == 130
    assert lines(said)[-1] == "tmkt: interrupted; nothing is saved yet; run the same command again to start over"
    assert RunFolder(tiny.out).checkpoints.steps() == []


def test_after_a_checkpoint_a_second_ctrl_c_names_it(start, tiny):
    process = start(3, 2, "train.checkpoint_every=1")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, said = process.communicate(timeout=30)
    assert lines(said)[-1] == "tmkt: interrupted; run the same command again to resume from step 2"


def test_signals_are_noted_once_each_and_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with noted_signals() as noted:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert sorted(noted) == [signal.SIGINT, signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted_signals() as noted:
            os.kill(os.getpid(), signal.SIGINT)
        assert noted == []
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def grid(tmp_path, tiny_settings):
    """Returns a function that starts `tmkt compare` on two runs of some seconds each."""
    (tmp_path / "empty.yaml").write_text("{}")
    settings = [item for item in tiny_settings if not item.startswith(("out=", "train.steps", "train.eval_every"))]
    more = ["train.steps=200", "train.eval_every=200", "train.log_every=1", "train.checkpoint_every=20"]
    options = ["--methods", "events_only", "joint", "--seeds", "1", "--jobs", "2", "--out", str(tmp_path / "grid")]
    command = [sys.executable, "-m", "tmkt", "compare", str(tmp_path / "empty.yaml"), *settings, *more, *options]
    started = []

    def begin():
        log = (tmp_path / f"compare-{len(started)}.log").open("w+")
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)
        process.said = lambda: Path(log.name).read_text()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def children(folder):
    """Return the processes that train below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"train" in command and any(item.startswith(f"out={folder}".encode()) for item in command):
            found.append(int(path.parent.name))
    return found


def eventually(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def running(folder):
    """Return whether both runs are in their training loop, where a signal is noted and the step saved."""
    return sum(RunFolder(path.parent).steps_done() > 0 for path in folder.glob("runs/*/*/*/metrics.jsonl")) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_compare_that_ends_leaves_no_run_and_the_next_goes_on(grid, tmp_path, number):
    folder = tmp_path / "grid"
    first = grid()
    eventually(lambda: running(folder))
    first.send_signal(number)
    second = grid()  # at once, while the runs of the first may still be saving
    assert second.wait(timeout=300) == 0, second.said()
    assert first.wait() == (-number if number == signal.SIGKILL else 130)
    assert children(folder) == []
    assert not any("error" in run for run in json.loads((folder / "results.json").read_text())["runs"])
    logs = list(folder.glob("runs/*/*/*/train.log"))
    assert len(logs) == 2
    assert all("resuming from step" in log.read_text() for log in logs)


def test_runs_end_with_a_killed_compare(grid, tmp_path):
    first = grid()
    eventually(lambda: running(tmp_path / "grid"))
    assert len(children(tmp_path / "grid")) == 2
    first.kill()
    first.wait()
    eventually(lambda: children(tmp_path / "grid") == [], 30)


def test_two_compares_at_once_share_the_work(grid, tmp_path):
    first, second = grid(), grid()
    assert [process.wait(timeout=300) for process in (first, second)] == [0, 0], first.said() + second.said()
    said = first.said() + second.said()
    assert "another tmkt compare is at work in it; waiting until it ends" in " ".join(said.split())
    assert "2 of 2 runs are finished already" in " ".join(said.split())
