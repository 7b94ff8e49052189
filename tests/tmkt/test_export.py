"""`tmkt export`: the exported folder gives the run's answers, names no path of this machine, and is a run itself."""

import io
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tmkt import arguments
from tmkt.cli import main
from tmkt.config import load_config
from tmkt.errors import UserError
from tmkt.export import FORMATS, export_run
from tmkt.export.programs import as_chain, nir_graph, torch_program
from tmkt.models import create_model, model_names
from tmkt.models.modes import evaluation_mode, fit_running_statistics
from tmkt.training.evaluation import evaluate_parts
from tmkt.training.run_folder import RunFolder
from tmkt.training.trainer import train


@pytest.fixture
def run(tiny, tmp_path):
    """The folder of a finished run, with a cache."""
    train(tiny.replace(train__steps=2, train__eval_every=2, data__cache=str(tmp_path / "cache")))
    return Path(tiny.out)


def frames(batch, size=(16, 16), time_steps=4):
    return torch.rand(time_steps, batch, 2, *size, generator=torch.Generator().manual_seed(1)).mul(3).floor()


def test_an_export_gives_the_answers_of_the_run(run, recordings, tmp_path, capsys, monkeypatch):
    out = tmp_path / "model"
    assert main(["export", str(run), str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    shutil.rmtree(tmp_path / "cache")
    names = {"README.md", "config.yaml", "metrics.jsonl", "model.safetensors", "predictions.jsonl", "split.json"}
    assert {path.name for path in out.iterdir()} == names
    expected = evaluate_parts(run, recordings)
    shutil.move(run, tmp_path / "gone")
    capsys.readouterr()
    assert evaluate_parts(out, recordings) == expected
    assert "weights were trained" not in capsys.readouterr().err  # they name the settings of the export
    assert RunFolder(out).predictions() == RunFolder(tmp_path / "gone").predictions()
    assert [record["kind"] for record in RunFolder(out).metrics()] == ["environment", "test"]
    assert main(["eval", str(out), "--events", str(recordings)]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("unseen: ")
    assert main(["eval", str(out)]) == 2  # its recordings are elsewhere
    assert "'events' is not a folder" in capsys.readouterr().err


def test_an_export_names_no_path_of_this_machine(run, recordings, tmp_path):
    out = export_run(run, tmp_path / "model", ["torch"])
    here = [str(tmp_path).encode(), str(Path(torch.__file__).parent).encode(), str(Path(__file__).parents[2]).encode()]
    for path in out.iterdir():
        data = path.read_bytes()
        if path.suffix == ".pt2":
            archive = zipfile.ZipFile(io.BytesIO(data))
            data = b"".join(archive.read(name) for name in archive.namelist())
        assert not any(folder in data for folder in here), path.name
    config = load_config(out / "config.yaml")
    assert (config.data.cache, config.data.events.root, config.out) == (None, recordings.name, "run")


def test_the_card_states_the_figures_and_its_python_runs(run, recordings, tmp_path, monkeypatch, capsys):
    out = export_run(run, tmp_path / "model")
    card = (out / "README.md").read_text()
    score = RunFolder(run).test_score()
    assert f"{score['accuracy']:.4f} ({score['correct']}/9 test recordings), 95 % Wilson interval 0." in card
    for said in (
        "3: ",
        "small, channels [4, 8]",
        "tmkt, 2 optimiser steps, seed 42",
        "9 to train on, 6 to validate",
        "T = 4",
        "torch 2.",
    ):
        assert said in card, said
    assert "tmkt train config.yaml data.events.root=... out=runs/run\ntmkt export runs/run run\n" in card
    shutil.copytree(recordings, out / "recordings")
    monkeypatch.chdir(out)
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(snippet, {})
    answers = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert len(answers) == 24
    classes = RunFolder(run).classes()
    for record in RunFolder(run).predictions():
        assert answers[record["name"]] == classes[record["predicted"]]


def test_an_export_may_be_written_again_and_exported(run, recordings, tmp_path):
    first = export_run(run, tmp_path / "model", ["torch"])
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    export_run(run, first)
    assert {path.name for path in first.iterdir()} == before.keys() - {"model.pt2"}
    again = export_run(first, tmp_path / "copy")
    assert (again / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert evaluate_parts(again, recordings) == evaluate_parts(run, recordings)


def test_a_class_map_of_the_users_own_goes_along(tiny, recordings, tmp_path):
    own = tmp_path / "own.csv"
    (recordings / "2").rename(recordings / "two")
    own.write_text("class,static,events\na,0,0\nb,1,1\nc,2,two\n")
    train(tiny.replace(train__steps=2, data__classes=str(own)))
    expected = evaluate_parts(tiny.out, recordings)
    out = export_run(tiny.out, tmp_path / "model")
    own.unlink()
    assert load_config(out / "config.yaml").data.classes == "classes.csv"
    assert evaluate_parts(out, recordings) == expected
    assert evaluate_parts(export_run(out, tmp_path / "again"), recordings) == expected


def test_mistakes_are_one_line_and_write_nothing(run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    (tmp_path / "file").write_text("mine")
    other = export_run(run, tmp_path / "other")
    (other / "split.json").write_text("{}")
    unfinished = shutil.copytree(run, tmp_path / "unfinished")
    (unfinished / "metrics.jsonl").write_text("")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for given, message in [
        ([run, tmp_path / "full"], "holds README.md, not an earlier export of this run"),
        ([run, tmp_path / "file"], "is no folder"),
        ([run, other], "holds split.json, not an earlier export"),
        ([run, run], "not an earlier export of this run"),
        ([unfinished, tmp_path / "out"], "has no score of its test recordings"),
        ([tmp_path / "empty", tmp_path / "out"], "config.yaml is missing"),
    ]:
        assert main(["export", *map(str, given)]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_offers_every_format():
    assert tuple(FORMATS) == arguments.EXPORT_FORMATS


def config_of(name, size, **options):
    plain = {"model.name": name, "data.time_steps": 4, "data.size": list(size), "model.options": options}
    return load_config(None, [f"{key}={value}" for key, value in plain.items()])


def network(name, size, **options):
    """A network with statistics with which it fires."""
    torch.manual_seed(0)
    neuron = {"v_threshold": 0.5}
    model = create_model(name, num_classes=3, size=size, neuron=neuron, **options)
    fit_running_statistics(model, frames(4, size[::-1]))
    return model


@pytest.mark.parametrize(
    "name", [n if n in ("small", "scnn") else pytest.param(n, marks=pytest.mark.slow) for n in model_names()]
)
def test_a_torch_program_of_every_backbone_equals_it(name):
    model = network(name, (32, 32))
    loaded = torch.export.load(io.BytesIO(torch_program(model, config_of(name, (32, 32))))).module()
    for batch in (1, 3):
        x_seq = frames(batch, (32, 32))
        with evaluation_mode(model):
            expected = model(x_seq).logits
            assert torch.equal(loaded(x_seq), expected)
    assert expected.std() > 0


@pytest.mark.parametrize(("name", "size"), [("small", (34, 33)), ("vgg_snn", (16, 16)), ("scnn", (16, 16))])
def test_a_nir_graph_of_a_chain_equals_it(name, size, tmp_path):
    pytest.importorskip("tmkt_kernels.compat.nir", reason="no nir >= 1.0.7 with nirtorch", exc_type=ImportError)
    import nir

    from tmkt_kernels.compat.nir import from_nir

    model = network(name, size)
    (tmp_path / "model.nir").write_bytes(nir_graph(model, config_of(name, size)))
    loaded = from_nir(nir.read(tmp_path / "model.nir"))
    x_seq = frames(3, size[::-1])
    with evaluation_mode(model):
        expected = model(x_seq).logits
        assert expected.std() > 0
        torch.testing.assert_close(loaded(x_seq), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(as_chain(model)(x_seq), expected, rtol=1e-4, atol=1e-4)


def test_nir_names_the_layer_that_it_cannot_express():
    with pytest.raises(UserError, match=r"--format nir: layer backbone\.\S+ \(SEWBlock\) .*; use --format torch"):
        as_chain(network("sew_resnet18", (32, 32)))


def test_nir_missing_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(UserError, match=r"pip install 'tmkt\[nir\]'"):
        nir_graph(network("small", (16, 16)), config_of("small", (16, 16)))


def test_the_card_says_which_weights_are_in_the_folder(tiny, tmp_path):
    config = tiny.replace(train__steps=2, transfer__average=0.9, out=str(tmp_path / "run"))
    train(config)
    card = (export_run(config.out, tmp_path / "model") / "README.md").read_text()
    assert "seed 42; moving average of the weights (decay 0.9) at the last step |" in card
