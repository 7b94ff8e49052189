"""A run's folder: the files that it writes, reads and refuses."""

import ast
from pathlib import Path

import pytest

from tmkt.config import load_config
from tmkt.data import prepare
from tmkt.errors import DamagedError, UserError
from tmkt.training.run_folder import RunFolder

PACKAGE = Path(__file__).parents[2] / "tmkt"
NAMES = {"config.yaml", "split.json", "metrics.jsonl", "predictions.jsonl", "model.safetensors", "teacher.safetensors"}
NAMES |= {"train.log", "tensorboard"}  # "checkpoints" is also a setting's word


def test_names_of_files_stand_in_one_module():
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in NAMES:
                modules.setdefault(node.value, set()).add(path.relative_to(PACKAGE).as_posix())
    assert modules == {name: {"training/run_folder.py"} for name in NAMES}


def test_what_was_written_is_read(tiny):
    folder, data = RunFolder(tiny.out), prepare(tiny)
    folder.begin(tiny, data.record)
    folder.append("train", 2, {"loss": 0.5})
    folder.finish([("0/1", 0, 2)], {}, "run")
    folder.lock.release()
    assert folder.split() == data.record
    assert folder.classes() == data.classes
    assert folder.metrics() == [{"kind": "train", "step": 2, "loss": 0.5}]
    assert folder.steps_done() == 2
    assert folder.predictions() == [{"name": "0/1", "label": 0, "predicted": 2}]
    recordings = {*data.train.events.names, *data.validation.names, *data.test.names}
    assert set(folder.recordings()) == recordings


def test_a_run_is_finished_with_its_score_predictions_and_weights(tiny):
    folder = RunFolder(tiny.out)
    folder.begin(tiny, prepare(tiny).record)
    score = {"accuracy": 0.5, "correct": 1, "total": 2, "seconds": 1.0}
    folder.append("test", 8, {**score, "seconds": None})
    folder.finish([], {}, "run")
    assert not folder.is_finished()
    folder.append("test", 8, score)
    assert folder.test_score() == {"kind": "test", "step": 8, **score}
    for name in ("predictions.jsonl", "model.safetensors"):
        (folder.path / name).rename(folder.path / "aside")
        assert not folder.is_finished()
        (folder.path / "aside").rename(folder.path / name)
    assert folder.is_finished()
    folder.lock.release()


def test_an_empty_folder_has_done_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.steps_done() == 0
    assert not folder.is_finished()
    assert folder.checkpoints.steps() == []
    for read in (folder.metrics, folder.split, folder.classes, folder.predictions):
        with pytest.raises(DamagedError, match="is missing"):
            read()
    with pytest.raises(UserError, match="expected the folder of a run"):
        folder.recordings()


def test_records_beyond_the_checkpoint_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    kept = '{"kind": "environment", "step": 0}\n{"kind": "train", "step": 4}\n'
    path.write_text(kept + '{"kind": "test", "step": 4}\n{"kind": "train", "step": 5}\n{"kind": "tr')
    RunFolder(tmp_path).rewind(4)
    assert path.read_text() == kept


@pytest.mark.parametrize("row", ['{"name": "a", "label": 0}', '{"name": "a", "label": 0, "predicted": 9}', "[]"])
def test_predictions_that_lack_a_value_are_damaged(tiny, row):
    folder = RunFolder(tiny.out)
    folder.begin(tiny, prepare(tiny).record)
    folder.lock.release()
    (folder.path / "predictions.jsonl").write_text(row + "\n")
    with pytest.raises(DamagedError, match=r"predictions\.jsonl"):
        folder.predictions()


def test_work_on_a_strangers_run_writes_no_cache_and_downloads_nothing(tmp_path):
    events = ["data.events.source=tonic", "data.events.name=NMNIST", "data.events.download=true"]
    config = load_config(None, [*events, "data.cache=/elsewhere", "data.classes=own.csv"])
    (tmp_path / "config.yaml").write_text(config.dump())
    run = RunFolder(tmp_path)
    assert run.config() == config
    guest = run.guest_config(["train.steps=7"])
    assert guest == config.replace(data__cache=None, data__events__download=False, train__steps=7)
    (tmp_path / "classes.csv").write_text("static,events\n")
    assert run.guest_config().data.classes == str(tmp_path / "classes.csv")
