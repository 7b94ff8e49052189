"""`tmkt compare`: a grid of short runs, and its page of results."""

import json
import shlex
import sys
import threading
import time
from html.parser import HTMLParser

import pytest
from filelock import FileLock

from tmkt.analysis.grid import make_grid, parse_method, run_grid
from tmkt.analysis.report import write_report
from tmkt.analysis.results import Results, Run
from tmkt.cli import main
from tmkt.errors import UserError
from tmkt.progress import visible
from tmkt.training.run_folder import RunFolder


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


@pytest.mark.slow
def test_compare_reports_what_finished_and_what_failed(tiny_settings, empty_config, tmp_path, capsys):
    out = tmp_path / "grid"
    settings = [item for item in tiny_settings if not item.startswith("out=")]
    # A learning rate that makes the loss infinite, so that the run starts and then fails.
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


@pytest.mark.slow
def test_the_reason_of_a_failure_is_its_own(tiny_settings, empty_config, tmp_path, monkeypatch):
    """The reason contains no line of an earlier start, and no progress of a run that was killed."""
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


@pytest.mark.slow
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
    failed = Results([Run("tmkt", 2, 1, "x", error=error)], [], [])
    parser = Page()
    parser.feed(write_report(tmp_path, cells, failed).read_text())
    assert f"tmkt, 2 per class, seed 1: {visible(error)}" in parser.text
    assert shlex.join([setting]) in parser.text  # in the command of the run
    assert not parser.tags & {"a", "img", "script", "em", "del"}  # the page itself uses none of these
    assert parser.attributes <= {"lang", "charset", "name", "content", "style"}
