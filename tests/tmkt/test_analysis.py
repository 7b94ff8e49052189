"""Comparison, diagnosis and profile: statistics on cases with known answers, then each command on runs of seconds."""

import json
import re
import shlex
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from scipy.stats import t as student_t

from tmkt.analysis import finished_run
from tmkt.analysis.features import domain_cka, guidance
from tmkt.analysis.finished_run import open_run
from tmkt.analysis.gradients import _one_draw
from tmkt.analysis.grid import make_grid, parse_method, run_grid
from tmkt.analysis.profile import _amount, layer_costs
from tmkt.analysis.report import write_report
from tmkt.analysis.statistics import bootstrap, holm, outcome_table
from tmkt.cli import main
from tmkt.errors import UserError
from tmkt.models import create_model
from tmkt.progress import visible
from tmkt.training.run_folder import RunFolder
from tmkt.training.trainer import train
from tmkt_kernels.nn import IF


def test_outcome_table_keeps_what_each_seed_tested():
    table = outcome_table([{"a": 1.0, "c": 0.0}, {"b": 1.0}])
    np.testing.assert_array_equal(table, [[1, np.nan, 0], [np.nan, 1, np.nan]])
    assert bootstrap(table).mean == 0.75  # mean over seeds of 1/2 and 1
    with pytest.raises(ValueError, match="every seed"):
        bootstrap(outcome_table([{"a": 1.0}, {}]))


def test_interval_of_one_seed_is_that_of_its_recordings():
    table = np.array([[1.0] * 320 + [0.0] * 80])
    interval = bootstrap(table)
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert interval.mean == 0.8
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.05)
    # The same recordings with the same outcome under every seed are no more evidence than once.
    assert bootstrap(np.repeat(table, 4, axis=0))[:3] == pytest.approx(interval[:3], abs=0.003)


def test_interval_of_seeds_alone_has_their_unbiased_variance():
    of_seed = np.random.default_rng(0).normal(0.8, 0.05, 12)
    interval = bootstrap(np.repeat(of_seed[:, None], 30, axis=1))
    width = 2 * student_t.ppf(0.975, 11) * of_seed.std(ddof=1) / 12**0.5
    assert interval.high - interval.low == pytest.approx(width, rel=0.04)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Seeds and recordings both vary; five seeds, disjoint in part. The target is 95 %, few seeds cost some."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(150):
        chance = np.clip(0.75 + rng.normal(0, 0.05, (5, 1)) + rng.normal(0, 0.15, (1, 120)), 0, 1)
        table = (rng.random((5, 120)) < chance).astype(float)
        table[rng.random(table.shape) < 0.3] = np.nan
        interval = bootstrap(table, replicates=400)
        covered += interval.low <= 0.743 <= interval.high  # the mean of the clipped chances
    assert 0.87 <= covered / 150 <= 1.0


def test_p_value_is_small_only_where_a_difference_is():
    rng = np.random.default_rng(2)
    assert bootstrap((rng.random((5, 200)) < 0.2).astype(float)).p < 0.001
    assert bootstrap(rng.choice([-1.0, 0.0, 1.0], (5, 200), p=[0.1, 0.8, 0.1])).p > 0.05
    assert bootstrap(np.zeros((3, 20))).p == 1.0


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_a_method_is_a_name_or_a_name_with_settings():
    assert parse_method("sliding") == ("sliding", ["transfer.method=sliding"])
    assert parse_method("plain:transfer.mag_weight=0:seed=1") == ("plain", ["transfer.mag_weight=0", "seed=1"])
    for bad in ("train.steps=3", "a/b", "x:y"):
        with pytest.raises(UserError, match="--methods"):
            parse_method(bad)


@pytest.fixture
def empty_config(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("{}")
    return str(path)


def test_grid_has_every_cell_once_and_refuses_mistakes_before_it_starts(tiny_settings, empty_config, tmp_path):
    grid = {"methods": ["tmkt", "joint"], "seeds": [1, 2], "per_class": [2, 3], "out": tmp_path / "grid"}
    cells = make_grid(empty_config, tiny_settings, **grid)
    assert len({cell.folder.path for cell in cells}) == 8
    assert [cell.seed for cell in cells] == [1] * 4 + [2] * 4
    assert cells[-1].config.data.events.train_per_class == 3
    assert cells[-1].config.transfer.method == "joint"
    for change, message in [
        ({"methods": ["tmkt", "tmkt"]}, "each once"),
        ({"seeds": [1, 1]}, "--seeds"),
        ({"methods": ["tmk"]}, "nearest: tmkt"),
        ({"methods": ["a:train.step=3"]}, "train.steps"),
    ]:
        with pytest.raises(UserError, match=message):
            make_grid(empty_config, tiny_settings, **{**grid, **change})
    cells[0].make_folder()
    (cells[0].folder.path / "config.yaml").write_text(cells[0].config.replace(train__steps=9).dump())
    with pytest.raises(UserError, match="other settings"):
        make_grid(empty_config, tiny_settings, **grid)


def test_compare_reports_what_finished_and_what_failed(tiny_settings, empty_config, tmp_path, capsys):
    out = tmp_path / "grid"
    settings = [item for item in tiny_settings if not item.startswith("out=")]
    # A learning rate that makes the loss infinite: the run starts, and fails.
    methods = ["--methods", "events_only", "tmkt", "broken:train.lr=1e30"]
    options = ["--seeds", "1", "--per-class", "2", "--jobs", "2", "--out", str(out), "train.eval_every=8"]
    assert main(["compare", empty_config, *settings, *methods, *options]) == 1
    assert "events_only" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert [r["method"] for r in results["runs"] if "error" in r] == ["broken"]
    assert "the loss is" in next(r["error"] for r in results["runs"] if "error" in r)
    means = {r["method"]: r for r in results["means"]}
    assert set(means) == {"events_only", "tmkt"}
    for run in results["runs"][:2]:
        mean = means[run["method"]]
        assert mean["accuracy"] == pytest.approx(run["correct"] / run["total"])
        assert mean["low"] <= mean["accuracy"] <= mean["high"]
    (difference,) = results["differences"]
    assert difference["difference"] == pytest.approx(means["events_only"]["accuracy"] - means["tmkt"]["accuracy"])
    markdown, html = ((out / name).read_text() for name in ("report.md", "report.html"))
    assert "broken, 2 per class, seed 1: tmkt: training: the loss is" in markdown
    assert "| broken | failed |" in markdown
    assert "<table>" in html
    pictures = {path.name for path in (out / "figures").glob("*.png")}
    assert pictures >= {"accuracy.png", "learning_curves_2.png", "confusion_2.png", "firing_rates.png"}
    assert pictures >= {"mixed_batch_tmkt.png", "spike_raster_tmkt.png", "spike_raster_events_only.png"}
    assert all(f"(figures/{name})" in markdown and f'src="figures/{name}"' in html for name in pictures)

    metrics = sorted(out.glob("runs/*/*/*/metrics.jsonl"))
    before = [path.stat().st_mtime_ns for path in metrics]
    assert main(["compare", empty_config, *settings, *methods[:3], *options]) == 0  # nothing is left to do
    assert [path.stat().st_mtime_ns for path in metrics] == before
    finished = RunFolder(out / "runs/tmkt/per_class_2/seed_1")
    assert finished.is_finished()
    (finished.path / "predictions.jsonl").unlink()
    assert not finished.is_finished()


def test_the_reason_of_a_failure_is_its_own(tiny_settings, empty_config, tmp_path, monkeypatch):
    """Not a line of the start before, nor the progress of a run that was killed."""
    (cell,) = make_grid(empty_config, tiny_settings, methods=["tmkt"], seeds=[1], per_class=[2], out=tmp_path)
    cell.make_folder()
    cell.folder.log.write_text("tmkt: of the start before\n")
    reasons = []
    for code in (
        "print('tmkt: wrong'); sys.exit(2)",
        "sys.exit(1)",
        "print('tmkt: step 3'); sys.stdout.flush(); os.kill(os.getpid(), 9)",
        "sys.exit(74)",
    ):
        (tmp_path / "fake").write_text(f"#!{sys.executable}\nimport os, sys\n{code}\n")
        (tmp_path / "fake").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "fake"))
        reasons += run_grid([cell], 1).values()
        monkeypatch.undo()
    assert reasons[:3] == [
        "tmkt: wrong",
        "ended with exit status 1; the last line that it printed: nothing",
        "was ended by SIGKILL; the last line that it printed: tmkt: step 3",
    ]
    assert reasons[3].endswith(
        "train.log could not be written; free space on that disk, then give the same command again"
    )
    assert cell.folder.log.read_text().startswith("tmkt: of the start before\ntmkt: wrong\n")


def test_a_run_that_another_process_trains_is_waited_for(tiny_settings, empty_config, tmp_path, monkeypatch, capsys):
    (cell,) = make_grid(empty_config, tiny_settings, methods=["tmkt"], seeds=[1], per_class=[2], out=tmp_path)
    (tmp_path / "fake").write_text(f"#!{sys.executable}\nimport time\nprint(time.monotonic())\n")
    (tmp_path / "fake").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "fake"))
    cell.make_folder()
    lock = FileLock(cell.folder.path / ".lock", thread_local=False)
    lock.acquire()
    released = []

    def release():
        released.append(time.monotonic())
        lock.release()

    timer = threading.Timer(1.5, release)
    timer.start()
    run_grid([cell], 1)
    timer.join()
    assert float(cell.folder.log.read_text()) > released[0]
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("another process is training it; waiting until it ends") == 1


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    "error",
    [
        "<img src=x onerror=alert(1)>",
        "**bold** _a_ `code` ``two`` ~~x~~ | cell",
        "[click](javascript:alert(1)) ![x](http://example.org/a.png) <http://example.org>",
        "one\ntwo\n\n# heading\n\n<script>alert(1)</script>",
        '" onload="alert(1)" & &lt; \\ \x1b[31m',
    ],
)
def test_the_report_shows_names_and_errors_as_they_are(tiny_settings, empty_config, tmp_path, error):
    setting = f"data.static.root={json.dumps(error)}"
    cells = make_grid(empty_config, [*tiny_settings, setting], methods=["tmkt"], seeds=[1], per_class=[2], out=tmp_path)
    run = {"method": "tmkt", "per_class": 2, "seed": 1, "folder": "x", "error": error}
    parser = Page()
    parser.feed(write_report(tmp_path, cells, {"runs": [run], "means": [], "differences": []}).read_text())
    assert f"tmkt, 2 per class, seed 1: {visible(error)}" in parser.text
    assert shlex.join([setting]) in parser.text  # in the command of the run
    assert not parser.tags & {"a", "img", "script", "em", "del"}  # of the page itself none is of these
    assert parser.attributes <= {"lang", "charset", "name", "content", "style"}


class TwoSteps(torch.nn.Module):
    """1x1 convolution, neurons, 3x3 convolution, neurons, linear layer, all weights 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(1, 1, 1, bias=False), torch.nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.last, self.neuron = torch.nn.Linear(18, 5), IF(v_threshold=1.0)
        for parameter in self.parameters():
            torch.nn.init.ones_(parameter)

    def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
        for conv in (self.first, self.second):
            x_seq = self.neuron(conv(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2]))
        return self.last(x_seq.flatten(2))


def test_synaptic_operations_counted_by_hand():
    frames = torch.zeros(2, 1, 1, 3, 3)  # a spike in a corner at the first step, in the middle at the second
    frames[0, 0, 0, 0, 0] = frames[1, 0, 0, 1, 1] = 1
    # Twice the same sample: costs are for one.
    (first, second, last), outside = layer_costs(TwoSteps(), frames.repeat(1, 2, 1, 1, 1))
    assert (first.inputs, first.macs, first.sops) == ("frames", 2 * 9, 2)
    # A corner reaches 2x2 outputs in each of 2 channels, the middle 3x3; each output reads 9 inputs.
    assert (second.inputs, second.macs, second.sops) == ("spikes", 2 * 9 * 2 * 9, 2 * 4 + 2 * 9)
    assert second.rate == pytest.approx(2 / 18)
    # All outputs that were reached fire, and reach 5 outputs of the linear layer.
    assert (last.macs, last.sops) == (2 * 18 * 5, (2 * 4 + 2 * 9) * 5)
    assert first.picojoules == pytest.approx(18 * 4.6)
    assert second.picojoules + last.picojoules == pytest.approx((26 + 130) * 0.9)
    assert outside == 0


def test_synaptic_operations_of_stride_and_groups():
    class Strided(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 6, 2, stride=2, groups=2)

        def forward(self, x_seq: torch.Tensor) -> torch.Tensor:
            return self.conv(x_seq.flatten(0, 1))

    frames = torch.zeros(1, 1, 2, 5, 5)
    frames[0, 0, 0, 0, 0] = frames[0, 0, 1, 3, 2] = 3.0  # each reaches one place in the 3 channels of its group
    frames[0, 0, 1, 4, 4] = 1.0  # beyond the last full stride: reaches nothing
    ((cost,), _) = layer_costs(Strided(), frames)
    assert (cost.macs, cost.sops) == (6 * 4 * 4, 2 * 3)


def test_products_of_activations_are_counted_apart():
    model = create_model("spikformer", num_classes=3, size=(16, 16), dim=16, depth=1)
    _, outside = layer_costs(model, torch.ones(2, 1, 2, 16, 16))
    assert outside > 0


def test_profile_of_a_backbone(tmp_path, capsys):
    folder = tmp_path / "small"
    size = ["--size", "16", "16", "-T", "2", "--batch", "2"]
    assert main(["profile", "--model", "small", *size, "--out", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "conv 2→16" in printed
    untrained, energy, *_ = printed[printed.index("untrained weights") :].splitlines()
    assert "untrained weights" in untrained
    assert re.match(r"energy: [\d.]+ uJ per sample over 2 steps, [\d.]+ times one dense pass \([\d.]+ uJ\)", energy)
    result = json.loads((folder / "profile.json").read_text())
    assert result["layers"][0]["macs"] == 2 * 16 * 16 * 16 * 2 * 9  # steps, pixels, outputs, inputs, kernel
    assert result["kept_bytes"] > 0
    assert result["inference_seconds"] > 0
    assert (folder / "profile.png").stat().st_size > 100
    for arguments, message in [
        (["profile"], "either RUN_DIR or --model"),
        (["profile", "--model", "smal"], "nearest is 'small'"),
        (["profile", "--model", "small", "--batch", "0"], "--batch"),
        (["profile", str(tmp_path)], "config.yaml is missing"),
        (["diagnose", str(tmp_path), "--draws", "1"], "--draws"),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (17.7194e-6, "J", "17.7 uJ"),
        (0.0, "J", "0 pJ"),
        (1e-3, "J", "1.00 mJ"),
        (1_234_567, "", "1.23 M"),
        (7, "", "7.00"),
    ],
)
def test_amounts_have_three_digits_and_a_prefix(value, unit, shown):
    assert _amount(value, unit) == shown


def test_cka_is_one_for_equal_features_and_lower_by_chance():
    features = {"layer": torch.randn(3, 40, 5)}
    row = domain_cka({"static": features, "event": features})["layer"]
    assert row["cka"] == pytest.approx([1.0] * 3, abs=1e-5)
    assert max(row["chance"]) < 0.5


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
    # Where every step is an event step, or none, both ways of mixing are the same and draw nothing.
    for ratio in (0.0, 1.0):
        time_step, sample = (_one_draw(run, ratio, mixing, 0) for mixing in ("time_step", "sample"))
        assert time_step == sample
        assert time_step[1] == 0
    assert _one_draw(run, 0.5, "time_step", 0) != _one_draw(run, 0.5, "sample", 0)
    samples = finished_run.TestSamples(run, 5)
    assert len(samples) == 5
    domains = samples.domains()
    assert (domains["static"][0] == domains["static"][-1]).all()
    torch.testing.assert_close(domains["event"], samples.frames.float())


def test_a_run_without_heads_has_no_guidance(tiny, capsys):
    config = tiny.replace(transfer__method="events_only", train__steps=2)
    train(config)
    run = open_run(config.out)
    assert guidance(run, finished_run.TestSamples(run, 4)) == {}
