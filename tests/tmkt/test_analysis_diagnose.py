"""`tmkt diagnose` and `tmkt profile` on a run of a few seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tmkt.analysis import finished_run
from tmkt.analysis.features import domain_cka, guidance
from tmkt.analysis.finished_run import open_run
from tmkt.analysis.gradients import gradient_variance
from tmkt.cli import main
from tmkt.training.trainer import train


def test_cka_is_one_for_equal_features_and_lower_by_chance():
    features = {"layer": torch.randn(3, 40, 5)}
    row = domain_cka({"static": features, "event": features})["layer"]
    assert row.cka == pytest.approx([1.0] * 3, abs=1e-5)
    assert max(row.chance) < 0.5


@pytest.mark.slow
def test_diagnose_and_profile_of_a_run(tiny, capsys):
    config = tiny.replace(transfer__method="tmkt", train__steps=4)
    train(config)
    assert main(["diagnose", config.out, "--draws", "2", "--samples", "6"]) == 0
    printed = capsys.readouterr().out
    for word in ("gradient variance at r = 0.5", "CKA of static and event", "MAG head", "MRP head"):
        assert word in printed
    folder = Path(config.out) / "diagnose"
    result = json.loads((folder / "diagnose.json").read_text())
    assert len(result["cka"]["membrane potential"]["cka"]) == config.data.time_steps
    assert len(result["gradient_variance"]) == 3 * 2 * 2
    assert all(record["trace"] > 0 for record in result["gradient_variance"])
    assert 0 <= result["guidance"]["mag"]["accuracy"] <= 1
    for name in ("cka.png", "tsne.png", "gradient_variance.png"):
        assert (folder / name).stat().st_size > 100

    before = (Path(config.out) / "model.safetensors").read_bytes()
    assert main(["profile", config.out, "--batch", "2"]) == 0
    assert "synaptic operations" in capsys.readouterr().out
    assert (Path(config.out) / "profile/profile.png").stat().st_size > 100
    assert (Path(config.out) / "model.safetensors").read_bytes() == before

    run = open_run(config.out)
    # If every step is an event step, or none, both ways of mixing are the same and draw nothing.
    with np.errstate(invalid="ignore"):  # their ratio is then 0 / 0
        found = gradient_variance(run, 1, (0.0, 0.5, 1.0))
    traces = {(g.ratio, g.mixing, g.source): (g.trace, g.signal) for g in found}
    for ratio in (0.0, 1.0):
        assert traces[ratio, "time_step", "all"] == traces[ratio, "sample", "all"]
        assert traces[ratio, "time_step", "mixing"] == traces[ratio, "sample", "mixing"] == (0.0, None)
    assert traces[0.5, "time_step", "mixing"] != traces[0.5, "sample", "mixing"]
    samples = finished_run.TestSamples(run, 5)
    assert len(samples) == 5
    domains = samples.domains()
    assert (domains["static"][0] == domains["static"][-1]).all()
    torch.testing.assert_close(domains["event"], samples.frames.float())


def test_a_run_without_heads_has_no_guidance(tiny, capsys):
    config = tiny.replace(transfer__method="events_only", train__steps=2)
    train(config)
    run = open_run(config.out)
    assert guidance(run, finished_run.TestSamples(run, 4)) == (None, None)
