"""`tmkt data check` finds every planted damage and nothing else."""

import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tmkt.cli import main
from tmkt.config import load_config
from tmkt.data import check
from tmkt.data.readers import READERS
from tmkt_kernels import events as ev


def change(path, **columns):
    events = ev.read_bin(path)
    for name, value in columns.items():
        events[name][7] = value
    ev.write_bin(path, events)


def backwards(path):
    """Damage the bytes of an event, because write_bin refuses time that runs backwards."""
    data = bytearray(path.read_bytes())
    data[5 * 9 + 2] &= 0x80
    data[5 * 9 + 3 : 5 * 9 + 5] = b"\0\0"
    path.write_bytes(bytes(data))


def link(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere.bin"))


def copied(path):
    """Copy the recording to another class too; the later of the two is reported."""
    target = path.parents[1] / "2" / "99999.bin"
    shutil.copy(path, target)
    return target


def renamed(path):
    return path.rename(path.with_suffix(".bim"))


def other_format(path):
    return path.rename(path.with_suffix(".aedat4"))


DAMAGE = {  # the damage to a recording, and the message; the function returns the path in the message if another
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-3]) and None, "no multiple of 5"),
    "cut off between events": (lambda p: p.write_bytes(p.read_bytes()[:1200]) and None, "the others 29"),
    "0 bytes": (lambda p: p.write_bytes(b"") and None, "0 bytes"),
    "wrong extension": (renamed, "is not a .bin"),
    "wrong format": (other_format, "no AEDAT 4.0 file"),
    "x beyond the sensor": (lambda p: change(p, x=16), "x = 16"),
    "y beyond the sensor": (lambda p: change(p, y=200), "y = 200"),
    "time backwards": (backwards, "time runs backwards"),
    "link to nowhere": (link, "is missing"),
    "copy in another class": (copied, "holds the same events as"),
}


@pytest.mark.parametrize("seed", range(8))
def test_fuzz(recordings, seed):
    rng = random.Random(seed)
    for label in range(3, 9):  # the folders to damage
        shutil.copytree(recordings / "0", recordings / str(label))
        for i, path in enumerate(sorted((recordings / str(label)).iterdir())):
            change(path, t=ev.read_bin(path)["t"][7], x=(label + i) % 16)
            change(path, y=label, p=i % 2)
    files = sorted((recordings / "0").iterdir()) + sorted((recordings / "1").iterdir())
    expected = {}
    for (plant, what), path in zip(DAMAGE.values(), rng.sample(files, len(DAMAGE)), strict=True):
        expected[plant(path) or path] = what
    empty = recordings / "empty"
    empty.mkdir()
    expected[empty] = "is empty"
    report = check.check_folder(recordings, sensor_size=(16, 16))
    found = {problem.path: problem.what for problem in report.problems}
    assert found.keys() == expected.keys()
    assert len(report.problems) == len(expected)
    for path, what in expected.items():
        assert what in found[path], (path, found[path])


def test_whole_folder_has_no_problem(recordings, capsys):
    assert main(["data", "check", str(recordings), "--sensor", "16", "16"]) == 0
    assert capsys.readouterr().out == "checked 24 recordings in 3 classes: no problem\n"


def test_problems_are_printed_and_the_status_is_1(recordings, capsys):
    (recordings / "1" / "00009.bin").write_bytes(b"")
    assert main(["data", "check", str(recordings)]) == 1
    *problems, summary = capsys.readouterr().out.splitlines()
    assert len(problems) == 1
    assert "00009.bin has 0 bytes" in problems[0]
    assert summary == "checked 24 recordings in 3 classes: 1 problem"


def test_config_names_unknown_missing_and_wrong_classes(tiny, tmp_path, recordings, capsys):
    """Images are found by name: image 0/00002 is the one that recording 0/00002 shows."""
    for path in recordings.rglob("*.bin"):
        image = tmp_path / "images" / path.parent.name / f"{path.stem}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(image)
    config = tmp_path / "c.yaml"
    tiny = tiny.replace(data__static__source="folder", data__static__root=str(tmp_path / "images"))
    config.write_text(tiny.replace(data__static__exclude_twins="name", data__static__kwargs={}).dump())
    assert main(["data", "check", str(recordings), "--config", str(config)]) == 0
    capsys.readouterr()
    (recordings / "0" / "00003.bin").rename(recordings / "1" / "00003.bin")
    shutil.copytree(recordings / "2", recordings / "two")
    shutil.rmtree(recordings / "2")
    assert main(["data", "check", str(recordings), "--config", str(config)]) == 1
    printed = capsys.readouterr().out
    assert "1/00003.bin is of the wrong class, or the image of its class and name is missing" in printed
    assert "two is none of the classes 0, 1, 2" in printed
    assert "has no folder for the class(es) 2" in printed
    assert printed.endswith("3 problems\n")


def test_wrong_class_of_a_real_recording_is_named(tmp_path, shared_data):
    """N-MNIST recording <id> shows MNIST image <id> - 1, which has a known label."""
    for label in range(10):
        for path in sorted((shared_data / f"N-MNIST-small/Train/{label}").iterdir())[:2]:
            target = tmp_path / "events" / str((label + 1) % 10 if path.stem == "00002" else label) / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    settings = ["source=MNIST", f"root={shared_data}", "kwargs={train: true}", "exclude_twins=nmnist"]
    config = load_config(None, [f"data.static.{setting}" for setting in settings])
    (problem,) = check.check_folder(tmp_path / "events", config=config).problems
    assert str(problem).endswith("1/00002.bin is of the wrong class: the image that it shows is of 0")


def test_run_names_recordings_that_are_gone(recordings, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "split.json").write_text('{"train": ["0/00001"], "validation": [], "test": ["1/77777"]}')
    assert main(["data", "check", str(recordings), "--run", str(run)]) == 1
    problem, summary = capsys.readouterr().out.splitlines()
    assert problem == f"{recordings / '1/77777'} is missing: {run} was made with it"
    assert summary.endswith("1 problem")
    assert main(["data", "check", str(recordings), "--run", str(tmp_path)]) == 2
    assert "split.json cannot be read" in capsys.readouterr().err


def test_parts_of_a_file_are_checked_each(tmp_path):
    folder = tmp_path / "dvs_background/Alphabet/character01"
    folder.mkdir(parents=True)
    (folder / "0001.aedat4").write_bytes(b"#!AER-DAT4.0\r\n")
    (folder / "0001.csv").write_text("index,start,end\n0,1,2\n1,2,3\n")
    images = tmp_path / "images/Alphabet/character01"
    images.mkdir(parents=True)
    Image.new("L", (4, 4)).save(images / "0001_01.png")
    config = load_config(
        None,
        ["data.events.layout=n_omniglot", "data.static.source=folder", f"data.static.root={tmp_path / 'images'}"],
    )
    problems = check.check_folder(tmp_path / "dvs_*", config=config).problems
    assert [problem.what.split()[0] for problem in problems] == [f"(Alphabet/character01/0001_0{k})" for k in (1, 2)]


def test_recordings_that_differ_in_length_are_no_problem(recordings):
    for k, path in enumerate(sorted(recordings.rglob("*.bin"))):
        path.write_bytes(path.read_bytes()[: 5 * (100 + 10 * k)])
    assert not check.check_folder(recordings).problems


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_real_recordings_cut_off_between_events_are_named(tmp_path, shared_data, share):
    paths = sorted((shared_data / "N-MNIST-small/Train").rglob("*.bin"))[::20]
    for path in paths:
        target = tmp_path / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    cut = sorted(tmp_path.rglob("*.bin"))[7]
    cut.chmod(0o600)
    cut.write_bytes(cut.read_bytes()[: 5 * int(cut.stat().st_size / 5 * share)])
    (problem,) = check.check_folder(tmp_path, sensor_size=(34, 34)).problems
    assert problem.path == cut


def test_real_recordings_are_whole(shared_data):
    report = check.check_folder(shared_data / "N-MNIST-small/Train", sensor_size=(34, 34))
    assert report.summary == "checked 800 recordings in 10 classes of 72 to 98: no problem"


def test_events_are_not_changed_by_checking(recordings):
    before = {p: p.read_bytes() for p in recordings.rglob("*.bin")}
    check.check_folder(recordings)
    assert before == {p: p.read_bytes() for p in recordings.rglob("*.bin")}
    assert np.all([len(data) for data in before.values()])


@pytest.mark.parametrize("folder", [None, "damaged"], ids=["made here", "with those that broke readers"])
def test_any_tree_is_read_to_its_end(recordings, folder, request, capsys):
    """Damaged files of every format, entries that are not files, and names unfit for a terminal."""
    for path in (request.getfixturevalue("shared_data") / folder).glob("*") if folder else ():
        shutil.copy(path, recordings / "0" / path.name)
    rng = random.Random(0)
    strange = recordings / "1"
    for suffix in READERS:
        (strange / f"random{suffix}").write_bytes(rng.randbytes(3001))
        (strange / f"text{suffix}").write_bytes(b"hello world\n" * 31)
        (strange / f"zeros{suffix}").write_bytes(bytes(3001))
    os.mkfifo(strange / "pipe.bin")
    (strange / "loop.bin").symlink_to("loop.bin")
    (strange / "device.bin").symlink_to("/dev/zero")
    (strange / "up").symlink_to("..")
    (strange / "new\nline \x1b[31m.bin").write_bytes(b"123")
    Path(os.fsdecode(os.fsencode(strange) + b"/no \xff text.bin")).write_bytes(b"123")
    with (strange / "huge.bin").open("wb") as file:
        file.truncate(1 << 40)
    expected = [p for p in recordings.rglob("*") if not p.is_dir() and not re.fullmatch(r"\d{5}\.bin", p.name)]
    assert main(["data", "check", str(recordings), "--sensor", "16", "16"]) == 1
    *problems, _ = capsys.readouterr().out.splitlines()
    assert len(problems) == len(expected)
    assert all(line.isprintable() for line in problems)
    for path in expected:
        assert any(Path(line.split()[0]).name == path.name for line in problems) or not path.name.isprintable(), path


def test_text_is_a_recording_where_its_columns_are_told(recordings):
    made = ev.read_bin(recordings / "0" / "00001.bin")
    lines = [f"{e['x']} {e['y']} {e['t']} {e['p']:d}" for e in made[1:]]
    (recordings / "0" / "notes.txt").write_text("\n".join(lines))
    (problem,) = check.check_folder(recordings).problems
    assert re.search(r"notes.txt is not a .bin / .* file; .* and text with columns.yaml beside it", str(problem))
    (recordings / "0" / "columns.yaml").write_text("x: 0\ny: 1\nt: 2\np: 3\nunit: us\n")
    report = check.check_folder(recordings)
    assert (report.recordings, report.problems) == (25, [])
