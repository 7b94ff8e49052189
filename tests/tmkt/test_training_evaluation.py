"""`tmkt eval` counts recordings that a run has seen separately, and names a damaged run."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tmkt.cli import main
from tmkt.errors import UserError
from tmkt.training.evaluation import Count, evaluate_parts, evaluate_run
from tmkt.training.trainer import train
from tmkt_kernels import events as ev


@pytest.fixture
def run(tiny):
    """The folder of a finished run."""
    train(tiny.replace(train__steps=2, train__eval_every=2))
    return Path(tiny.out)


def names(run, part):
    return json.loads((run / "split.json").read_text())[part]


def copied(recordings, folder, chosen, rename=lambda i, name: name):
    for i, name in enumerate(chosen):
        path = folder / f"{rename(i, name)}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(recordings / f"{name}.bin", path)
    return folder


def totals(result):
    return {part: count.total for part, count in result.parts.items()}


def test_what_was_seen_is_counted_apart(run, recordings, capsys):
    assert main(["eval", str(run), "--events", str(recordings)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["unseen", "validated", "trained", "accuracy"]
    assert [line.split("/")[1] for line in lines] == ["9)", "6)", "9)", "9)"]
    assert lines[0].split()[1:] == lines[3].split()[1:]
    assert "9 of these 24 recordings are ones that it was trained on" in captured.err
    assert main(["eval", str(run), "--events", str(recordings), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {part: count["total"] for part, count in record["parts"].items()} == {
        "unseen": 9,
        "validated": 6,
        "trained": 9,
    }
    assert (record["total"], record["accuracy"]) == (9, record["correct"] / 9)
    assert evaluate_run(run, recordings).total == 24


def test_copies_under_other_names_and_in_other_formats_were_seen_too(run, recordings, tmp_path):
    trained, tested = names(run, "train"), names(run, "test")
    folder = copied(recordings, tmp_path / "copies", trained, lambda i, name: f"{name[0]}/copy-{i}")
    copied(recordings, folder, tested[:4])
    assert totals(evaluate_parts(run, folder)) == {"unseen": 4, "validated": 0, "trained": 9}
    path = folder / "0" / "converted.npy"
    np.save(path, ev.read_bin(recordings / f"{trained[0]}.bin"))
    assert totals(evaluate_parts(run, folder))["trained"] == 10


def test_a_recording_of_the_runs_folder_was_seen_even_if_it_has_changed_since(run, recordings):
    name = names(run, "train")[0]
    shutil.copy(recordings / f"{names(run, 'test')[0]}.bin", recordings / f"{name}.bin")
    assert totals(evaluate_parts(run, recordings)) == {"unseen": 9, "validated": 6, "trained": 9}


def test_another_recording_of_the_same_name_is_unseen_and_said(run, recordings, tmp_path, capsys):
    chosen, tested = names(run, "train")[:3], names(run, "test")
    folder = tmp_path / "namesakes"
    for name in chosen:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(recordings / f"{next(t for t in tested if t[0] == name[0])}.bin", folder / f"{name}.bin")
    assert totals(evaluate_parts(run, folder)) == {"unseen": 3, "validated": 0, "trained": 0}
    assert "3 recordings have the name of one that the run has seen" in capsys.readouterr().err


def test_of_none_unseen_there_is_no_accuracy(run, recordings, tmp_path, capsys):
    folder = copied(recordings, tmp_path / "seen", names(run, "train"))
    assert main(["eval", str(run), "--events", str(folder)]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == "accuracy: none (0/0)"
    assert main(["eval", str(run), "--events", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] is None
    assert Count(0, 0).accuracy is None


def test_a_test_recording_that_is_a_copy_of_a_training_one_was_seen(tiny, run, recordings, capsys):
    trained, tested = names(run, "train")[0], names(run, "test")[0]
    shutil.copy(recordings / f"{trained}.bin", recordings / f"{tested}.bin")
    assert totals(evaluate_parts(run)) == {"unseen": 8, "validated": 0, "trained": 1}
    capsys.readouterr()
    train(tiny.replace(out=tiny.out + "-again", train__steps=2))
    assert "1 of the 9 test recordings are copies of training ones" in capsys.readouterr().err


def spoil_weights(change):
    def spoil(path):
        weights = load_file(path)
        change(weights, next(name for name in weights if name.endswith("conv.weight")))
        save_file(weights, path)

    return spoil


def reshape(weights, name):
    weights[name] = torch.zeros(2, 2)


def drop(weights, name):
    del weights[name]


def retype(weights, name):
    weights[name] = weights[name].double()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


FAULTS = {
    "split.json": [cut, pipe, *(lambda p, t=t: p.write_bytes(t) for t in (b"", b"{}", b"[]", b"\xff", b"[" * 99_999))],
    "model.safetensors": [cut, flip, pipe, *map(spoil_weights, (reshape, drop, retype))],
    "config.yaml": [lambda p: p.write_bytes(b"\xff\xfe"), lambda p: p.write_text("- 1")],
}


@pytest.mark.parametrize(("name", "fault"), [(name, i) for name, faults in FAULTS.items() for i in range(len(faults))])
def test_a_damaged_run_is_one_line_that_names_the_file(run, capsys, name, fault):
    FAULTS[name][fault](run / name)
    capsys.readouterr()
    assert main(["eval", str(run)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert name in said


def test_weights_of_another_run_are_said(run, tiny, capsys):
    other = tiny.replace(out=tiny.out + "-other", seed=3, train__steps=2)
    train(other)
    shutil.copy(Path(other.out) / "model.safetensors", run)
    evaluate_run(run)
    assert "is not the one that these weights were trained with" in " ".join(capsys.readouterr().err.split())


def test_own_test_recordings_are_read_and_no_others(run, recordings):
    before = evaluate_run(run)
    for part in ("train", "validation"):
        for name in names(run, part):
            (recordings / f"{name}.bin").write_bytes(b"damaged")
    assert evaluate_run(run) == before
    (recordings / f"{names(run, 'test')[0]}.bin").write_bytes(b"damaged")
    with pytest.raises(UserError, match=names(run, "test")[0]):
        evaluate_run(run)


def test_a_run_of_a_stranger_writes_no_cache(run, recordings, tmp_path):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("cache: null", f"cache: {tmp_path / 'cache'}"))
    assert "/cache" in config.read_text()
    assert evaluate_run(run).total == 9
    assert evaluate_run(run, recordings).total == 24
    assert not (tmp_path / "cache").exists()
