"""The message of a process when another process of its run is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tmkt.distributed import is_of_torch_distributed
from tmkt.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two(tmp_path, tiny_settings):
    """Two processes of one run, started without torchrun, when both are training."""
    (tmp_path / "empty.yaml").write_text("{}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    own = ["train.steps=100000", "train.log_every=1", "train.eval_every=100000", "train.timeout=5"]
    own += ["data.events.validation_per_class=0", "train.checkpoint_every=100000"]
    command = [sys.executable, "-m", "tmkt", "train", str(tmp_path / "empty.yaml"), *tiny_settings, *own]
    places = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in ("0", "1"):
        environment = {**os.environ, **places, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
            )
        )
    metrics = tmp_path / "run" / "metrics.jsonl"
    end = time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("\n") < 5:
        assert time.monotonic() < end
        time.sleep(0.1)
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("lost", "number"), [(0, signal.SIGSTOP), (1, signal.SIGKILL)])
def test_the_loss_of_a_process_is_one_line(two, lost, number):
    two[lost].send_signal(number)
    _, said = two[1 - lost].communicate(timeout=90)
    assert two[1 - lost].returncode == 2, said
    errors = [line for line in said.splitlines() if line.startswith("tmkt: ")]
    assert errors == [
        "tmkt: processes: another one of this run has ended or did not answer for 5 s (train.timeout); see what it "
        "said and start all of them again: the run goes on from its last checkpoint"
    ]
    assert "Traceback" not in said


def test_errors_of_torch_distributed_are_told_by_where_they_come_from():
    with pytest.raises(ValueError) as of_torch:
        torch.distributed.get_rank(group=object())
    assert is_of_torch_distributed(of_torch.value)
    ddp = {"__name__": "torch.nn.parallel.distributed"}
    exec("def forward(): raise RuntimeError('Application timeout caused pair closure')", ddp)
    with pytest.raises(RuntimeError) as of_ddp:
        ddp["forward"]()
    assert is_of_torch_distributed(of_ddp.value)
    with pytest.raises(RuntimeError) as of_ours:
        torch.ones(2).view(3)
    assert not is_of_torch_distributed(of_ours.value)


@pytest.mark.parametrize("told", [[1], [0, 1]])
def test_processes_stop_at_the_same_step_and_the_first_says_which(two, tmp_path, told):
    for rank in told:
        two[rank].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=90)[1] for process in two]
    assert [process.returncode for process in two] == [128 + signal.SIGTERM] * 2, said
    (step,) = RunFolder(tmp_path / "run").checkpoints.steps()
    assert said[0].splitlines()[-1] == f"tmkt: interrupted; run the same command again to resume from step {step}"
    assert said[1] == ""
