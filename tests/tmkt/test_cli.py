"""The command line: its output, and its answers to mistakes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tmkt
from tmkt import cli
from tmkt.cli import main
from tmkt.errors import UserError
from tmkt.progress import track
from tmkt.training.trainer import Trainer, train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty_config(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("{}")
    return str(path)


def test_help_loads_neither_the_trainer_nor_torch():
    code = "import sys, tmkt.cli; tmkt.cli.build_parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert tmkt.mixup.sample_switch_steps is not None  # loaded at its first use


@pytest.mark.parametrize(
    "command",
    ["", "demo", "train", "eval", "data", "data check", "data prepare", "compare", "diagnose", "profile", "export"],
)
def test_help_fits_80_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_without_the_extra_the_trainer_says_what_to_install():
    code = "import sys; sys.modules['yaml'] = None; from tmkt.cli import main; sys.exit(main(['train', 'a.yaml']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the package 'yaml' is not installed; run `pip install 'tmkt[train]'`" in done.stderr


def test_help_names_commands_and_files(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    examples = (
        "tmkt demo",
        "tmkt train configs/nmnist.yaml",
        "tmkt eval",
        "tmkt compare",
        "tmkt export",
        "tmkt diagnose",
        "tmkt profile",
    )
    for word in (*examples, "predictions.jsonl", "metrics.jsonl", "<class>/<id>.bin"):
        assert word in text


def test_training_says_what_it_does_and_how_far_it_is(tiny_settings, tiny, empty_config, capsys):
    assert main(["train", empty_config, *tiny_settings]) == 0
    said = capsys.readouterr().err
    for line in (
        r"data: +9 recordings to train on, 6 to validate, 9 to test; 30 images",
        r"model: +small, [\d,]+ parameters; 3 classes, 4 time steps of 16x16 pixels",
        r"method: +tmkt, 8 optimiser steps of 6 samples",
        r"device: +cpu, \d+ threads?; backend \w+",
        rf"out: +{re.escape(tiny.out)}",
        r"tmkt, step 2/8: loss \d+\.\d+, accuracy \d\.\d+, \d+:\d\d elapsed, \d+:\d\d left",
        r"tmkt, step 4/8: validation accuracy \d\.\d+ \(\d/6\)",
    ):
        assert re.search(f"^{line}$", said, re.MULTILINE), line


def test_a_slow_loop_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr("tmkt.progress.SILENCE", -1.0)
    assert list(track(["a", "b", "c"], "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == [f"reading: {done} of 3" for done in range(3)]


def test_train_then_eval_print_the_accuracy_last(tiny_settings, tiny, recordings, empty_config, capsys):
    assert main(["train", empty_config, *tiny_settings]) == 0
    trained = capsys.readouterr().out.strip().splitlines()
    assert re.fullmatch(r"accuracy: [01]\.\d{4} \((\d+)/9\)", trained[-1])
    assert main(["eval", tiny.out]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == trained[-1]
    assert main(["eval", tiny.out, "--events", str(recordings)]) == 0
    assert re.fullmatch(r"accuracy: [01]\.\d{4} \(\d+/9\)", capsys.readouterr().out.strip().splitlines()[-1])


def test_mistakes_print_one_line_and_exit_with_2(tiny_settings, tiny, recordings, empty_config, capsys):
    (recordings / "2" / "00017.bin").write_bytes(b"abc")
    for arguments, message in [
        (["train", "none.yaml"], "none.yaml: cannot be read"),
        (["train", empty_config, "train.step=3"], "the nearest known one is train.steps"),
        (["train", empty_config, *tiny_settings], "00017.bin"),
        (["train", empty_config, *tiny_settings, "model.neuron.backend=cuda"], "model.neuron: backend: expected"),
        (["train", empty_config, *tiny_settings, "data.size=[3, 3]"], "data.size: 2 poolings need frames"),
        (["eval", tiny.out], "config.yaml is missing"),
    ]:
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.startswith("tmkt: ")
        assert captured.err.count("\n") == 1
        assert captured.out == ""


@pytest.mark.slow
def test_demo_in_small(tmp_path, capsys):
    out = tmp_path / "demo"
    settings = ["train.steps=4", "train.batch=10", "train.eval_every=2", "data.time_steps=4", "data.size=[16, 16]"]
    sizes = ["data.static.source=sklearn_digits", "data.events.test_per_class=2", "data.events.validation_per_class=1"]
    fit = ["data.static.fit=resize", "model.options={channels: [4, 8]}", "data.events.sensor_size=[16, 16]"]
    assert main(["demo", "--out", str(out), "--seed", "1", *settings, *sizes, *fit]) == 0
    printed, said = capsys.readouterr()
    assert re.search(r"a few simulated event recordings .*depend\s+on the processor", said, re.DOTALL)
    assert said.count("data:  ") == 1  # the runs share their data
    parts = ("1 of 4, events_only", "2 of 4, sliding", "3 of 4, tmkt", "tmkt, step 4/4: loss", "4 of 4, bridge")
    for part in parts:
        assert part in said
    assert "cameras fitted to 30 recordings" in said
    assert "which favours it" in printed
    assert printed.index("accuracy.png") < printed.index("tmkt data check") < printed.index("own.yaml")
    for method in ("events_only", "sliding", "tmkt", "bridge"):
        assert method in printed
        assert (out / method / "model.safetensors").is_file()
    figures = ("mixed_batch", "bridge", "learning_curves", "spike_raster", "accuracy")
    for name in (*(f"{figure}.png" for figure in figures), "table.txt"):
        assert (out / name).stat().st_size > 100
        assert name in printed
    assert (out / "tmkt/split.json").read_text() == (out / "events_only/split.json").read_text()


def test_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "tmkt", "train"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "CONFIG.yaml" in done.stderr


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert (left.value.code, capsys.readouterr().out) == (0, f"tmkt {tmkt.__version__}\n")


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("trian", "train"), ("evaluate", "eval"), ("Compare", "compare"), ("data chekc", "check")],
)
def test_an_unknown_command_names_the_nearest(capsys, given, nearest):
    with pytest.raises(SystemExit) as left:
        main(given.split())
    assert left.value.code == 2
    unknown = given.split()[-1]
    assert re.search(rf"command '{unknown}'; the nearest is '{nearest}'\n$", capsys.readouterr().err)


def test_without_a_command_the_help_is_printed(capsys):
    assert main([]) == 2
    assert "tmkt demo" in capsys.readouterr().err


def test_usage_asks_only_for_what_is_required(capsys):
    with pytest.raises(SystemExit):
        main(["train"])
    assert capsys.readouterr().err.endswith("the following arguments are required: CONFIG.yaml\n")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("train.batch=1000000000000", "train.batch 1000000000000"),
        ("train.accumulate=1000000000000", "accumulate 1000000000000"),
        ("data.time_steps=1000000000", "data.time_steps 1000000000"),
        ("data.size=[1000000, 1000000]", "data.size 1000000x1000000"),
        ("data.crop_padding=1000000000", "data.crop_padding 1000000000"),
        ("model.options={channels: [1000000000, 1000000000]}", "channels"),
    ],
)
def test_what_is_too_large_is_named(tiny_settings, empty_config, capsys, setting, named):
    assert main(["train", empty_config, *tiny_settings, setting]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tmkt: memory: ")
    assert said.count("\n") == 1
    assert named in said


def test_a_teacher_that_is_too_large_is_named(tiny_settings, empty_config, capsys):
    own = ["transfer.method=ckd", "transfer.teacher.batch=1000000000000"]
    assert main(["train", empty_config, *tiny_settings, *own]) == 2
    assert "transfer.teacher.batch 1000000000000 images" in capsys.readouterr().err


def test_memory_that_runs_out_is_named(tiny, monkeypatch):
    def hungry(self):
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(Trainer, "train_step", hungry)
    with pytest.raises(UserError, match=r"memory: there is not enough \(.*\); lower train\.batch \(6\)"):
        train(tiny)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stream", "arguments"), [("stdout", ["--json"]), ("stdout", []), ("stderr", ["--events", "no"])]
)
def test_output_that_cannot_be_written_is_one_line(tiny, stream, arguments):
    train(tiny.replace(train__steps=2))
    command = [sys.executable, "-m", "tmkt", "eval", tiny.out, *arguments]
    with Path("/dev/full").open("w") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        done = subprocess.run(command, cwd=ROOT, text=True, check=False, **streams)
    assert done.returncode == cli.UNHEARD
    expected = "tmkt: what this command prints cannot be written (No space left on device)\n"
    assert {"stdout": done.stderr, "stderr": done.stdout}[stream] == {"stdout": expected, "stderr": ""}[stream]
