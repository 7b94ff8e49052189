"""Several processes together give the same result as one with the whole batch, and only one of them writes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from tmkt.distributed import gather_batch
from tmkt.errors import UserError
from tmkt.method.losses import domain_alignment
from tmkt.models import registry
from tmkt.models.blocks import ConvLIF
from tmkt.training.run_folder import RunFolder
from tmkt.training.trainer import train

ROOT = Path(__file__).parents[2]
AUGMENT = {"nda": True, "event_drop": 0.75, "cutmix": 0.2, "event_mix": 0.3, "time_mix": 0.3}


def smooth(in_channels, size, neuron):
    """One conv-BN-LIF whose neurons never fire; its output is the membrane potential, so that no spike can flip."""
    backbone = Smooth()
    backbone.layer = ConvLIF(in_channels, 4, {**neuron, "v_threshold": 1e6}, return_v=True)
    backbone.spike_features = backbone.membrane_features = 4 * size[0] * size[1]
    return backbone


class Smooth(nn.Module):
    def forward(self, x_seq):
        v_seq = self.layer(x_seq)[1].flatten(2)
        return v_seq, v_seq


def losses(run):
    lines = [r for r in RunFolder(run).metrics() if r["kind"] != "environment"]
    return {(r["kind"], r["step"], key): r[key] for r in lines for key in r.keys() - {"kind", "seconds"}}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def member(rank, port, config, folder):
    """One process of two, as torchrun would start it."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    os.environ.update(zip(names, (str(rank), str(rank), "2", "2", "127.0.0.1", port), strict=True))
    torch.set_num_threads(1)
    registry.register_model(smooth)
    if rank == 1:
        config = config.replace(out=f"{config.out}-unused")
    score = train(config)
    (folder / f"score-{rank}").write_text(repr(score))
    if rank == 0:
        config = config.replace(resume="never")
    try:
        train(config)
    except UserError as error:
        (folder / "error-0").write_text(str(error))
    except SystemExit as left:
        (folder / f"left-{rank}").write_text(str(left.code))
    torch.save(alignment_of_share(rank), folder / f"alignment-{rank}.pt")
    dist.destroy_process_group()


def features():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 8, 5, generator=generator) for _ in range(2)]


def alignment_of_share(rank):
    """Return DA, and its gradient with respect to the process's own rows of both inputs."""
    mixed, event = (f[:, 4 * rank : 4 * rank + 4].clone().requires_grad_() for f in features())
    loss = domain_alignment(gather_batch(mixed), gather_batch(event))
    loss.backward()
    return loss.detach(), mixed.grad, event.grad


# The spikes of `small` are thresholds, so that one may flip if a processor adds in an order that depends on the batch.
# Only `smooth` can show that two processes equal one; `small` must only stay near.
@pytest.fixture(params=[("smooth", {}, 1e-5), ("small", {"channels": [4, 8]}, 2e-2)], ids=lambda param: param[0])
def backbone(request):
    return request.param


@pytest.fixture
def two(tiny, backbone, processes, tmp_path, monkeypatch):
    """A run of two processes with six pairs each; rank 1 has another output folder, which it must not touch."""
    monkeypatch.setitem(registry.BACKBONES, "smooth", smooth)
    name, options, _ = backbone
    config = tiny.replace(train__log_every=1, model__name=name, model__options=options, data__bridge="camera")
    config = config.replace(**{f"data__augment__{key}": value for key, value in AUGMENT.items()})
    port = free_port()
    workers = [processes.Process(target=member, args=(rank, port, config, tmp_path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    return config


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(two, backbone, tmp_path):
    tolerance = backbone[2]
    one = two.replace(train__batch=12, out=two.out + "-one")
    score = train(one)
    together, alone = losses(two.out), losses(one.out)
    assert together.keys() == alone.keys()
    assert ("train", 8, "da") in alone
    for key, value in alone.items():
        assert together[key] == pytest.approx(value, rel=tolerance, abs=1e-5), key
    weights, same = (load_file(Path(run.out) / "model.safetensors") for run in (one, two))
    for name in weights:
        one_process, two_processes = weights[name].double(), same[name].double()
        distance = (two_processes - one_process).norm() / one_process.norm().clamp(min=1e-3)
        assert distance < tolerance, name
    # Every process has the same score, combined from their shares.
    assert (tmp_path / "score-0").read_text() == (tmp_path / "score-1").read_text()
    assert f"correct={score.correct}, total=9" in (tmp_path / "score-0").read_text()
    environment = RunFolder(two.out).metrics()[0]
    assert (environment["processes"], environment["global_batch"]) == (2, 12)
    assert not Path(f"{two.out}-unused").exists()
    # A mistake is reported once.
    assert "holds a run already" in (tmp_path / "error-0").read_text()
    assert (tmp_path / "left-1").read_text() == "2"
    # Another number of processes would be another run.
    with pytest.raises(UserError, match=r"processes of the run in .*: 2, now 1"):
        train(two)
    # Domain alignment compares all samples; its gradients, averaged over processes, are those of the whole batch.
    mixed, event = (f.requires_grad_() for f in features())
    domain_alignment(mixed, event).backward()
    shares = [torch.load(tmp_path / f"alignment-{rank}.pt") for rank in range(2)]
    for whole, parts in ((mixed.grad, [s[1] for s in shares]), (event.grad, [s[2] for s in shares])):
        torch.testing.assert_close(torch.cat(parts, dim=1) / 2, whole)


@pytest.mark.slow
def test_torchrun_of_the_command(tiny_settings, tmp_path):
    (tmp_path / "empty.yaml").write_text("{}")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "tmkt", "train", str(tmp_path / "empty.yaml"), *tiny_settings, "train.steps=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.strip().splitlines()] == ["run", "accuracy"]
