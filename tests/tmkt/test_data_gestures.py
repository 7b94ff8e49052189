"""DVS128 Gesture: several recordings in a file, lists of trials, and what is wrong with either."""

import numpy as np
import pytest
import recorded

from tmkt.cli import main
from tmkt.config import load_config
from tmkt.data import prepare
from tmkt.data.layouts import list_dvs_gesture
from tmkt.data.readers import READERS
from tmkt.errors import UserError

SECOND = 10**6
HEAD = "class,startTime_usec,endTime_usec"


@pytest.fixture
def root(tmp_path):
    """Four trials of a gesture of each class, one second each; the last trial tests."""
    root, rng = tmp_path / "DvsGesture", np.random.default_rng(0)
    root.mkdir()
    for user in range(1, 5):
        times = np.arange(0, 12 * SECOND, 5000)
        x, y, p = rng.integers(0, [[128], [128], [2]], (3, len(times))).tolist()
        events = list(zip(x, y, times.tolist(), p, strict=True))
        (root / f"user{user:02d}_led.aedat").write_bytes(recorded.file_of("aedat3", events))
        rows = [f"{k},{k * SECOND},{(k + 1) * SECOND}" for k in range(1, 12)]
        (root / f"user{user:02d}_led_labels.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    (root / "trials_to_train.txt").write_text("user01_led.aedat\nuser02_led.aedat\nuser03_led.aedat\n")
    (root / "trials_to_test.txt").write_text("user04_led.aedat\n\n")
    return root


@pytest.fixture
def settings(root):
    return [
        "data.time_steps=2",
        "data.size=[16, 16]",
        "data.classes=dvsgesture",
        f"data.events.root={root}",
        "data.events.layout=dvs_gesture",
        "data.events.sensor_size=[128, 128]",
        "data.events.split=dvsgesture",
        "data.events.train_per_class=null",
        "data.events.validation_per_class=0",
        "transfer.method=events_only",
    ]


@pytest.fixture
def check(settings, tmp_path, root, capsys):
    """check() -> the lines that `tmkt data check` prints, with names relative to the folder."""
    config = tmp_path / "gestures.yaml"
    config.write_text(load_config(None, settings).dump())

    def run():
        main(["data", "check", str(root), "--config", str(config)])
        return [line.replace(f"{root}/", "") for line in capsys.readouterr().out.splitlines()]

    return run


def relabel(root, line, row):
    """Replace a line of a table of labels."""
    table = root / "user02_led_labels.csv"
    lines = table.read_text().splitlines()
    lines[line - 1] = row
    table.write_text("\n".join(lines))


def test_a_gesture_is_a_recording(root, settings):
    listing = list_dvs_gesture(root, READERS, "recordings")
    assert len(listing.files) == 44
    file = listing.files[12]
    assert (file.folder, file.id, file.part) == ("right_hand_wave", "user02_led_02", "train")
    assert file.interval_us == (2 * SECOND, 3 * SECOND)
    data = prepare(load_config(None, settings))
    assert [len(part) for part in (data.train.events, data.validation, data.test)] == [33, 0, 11]
    assert (data.test.frames.sum((0, 2, 3, 4)) == 200).all()  # one second of events, 5 ms apart
    assert {name.rpartition("/")[2][:10] for name in data.test.names} == {"user04_led"}


def test_recordings_can_be_counted_out_instead(root, settings):
    for part in ("train", "test"):
        (root / f"trials_to_{part}.txt").unlink()
    with pytest.raises(UserError, match="the set lists none of the 4 recordings of hand_clapping to test on"):
        prepare(load_config(None, settings))
    counts = ['data.events.split=""', "data.events.train_per_class=2", "data.events.validation_per_class=1"]
    data = prepare(load_config(None, [*settings, *counts]))
    assert [len(part) for part in (data.train.events, data.validation, data.test)] == [22, 11, 11]


def test_a_whole_set_has_no_problem(check):
    assert check() == ["checked 44 recordings in 11 classes, 33 listed to train, 11 listed to test: no problem"]


@pytest.mark.parametrize(
    ("line", "row", "said"),
    [
        (4, "3,3000000", "is damaged: line 4, '3,3000000': expected class,startTime_usec,endTime_usec"),
        (4, "3,three,4000000", "is damaged: line 4, '3,three,4000000': expected class,startTime_usec,endTime_usec"),
        (4, "\0\xff,\x1b", "is damaged: line 4, "),
        (4, "12,3000000,4000000", "line 4, '12,3000000,4000000': class 12 is unknown; expected 1 to 11"),
        (4, "0,3000000,4000000", "class 0 is unknown; expected 1 to 11"),
        (4, "3,4000000,3000000", "line 4, '3,4000000,3000000': the gesture ends before it starts"),
    ],
)
def test_damaged_labels_are_named(root, settings, check, line, row, said):
    relabel(root, line, row)
    problem, summary = check()
    assert problem.startswith("user02_led_labels.csv ")
    assert said in problem
    assert "43 recordings in 11 classes of 3 to 4" in summary
    with pytest.raises(UserError, match=r"recordings: .*user02_led_labels\.csv "):
        prepare(load_config(None, settings))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("3,13000000,14000000", "no event lies in its time span, 13000000 to 14000000 us, and data.events.window"),
        ("3,11500000,12500000", "has no events in the 505 ms at the end of its time span, 11500000 to 12500000 us"),
    ],
)
def test_a_gesture_outside_its_file_is_named(root, check, row, said):
    relabel(root, 4, row)
    problem, _ = check()
    assert problem.startswith("user02_led.aedat (left_hand_wave/user02_led_03) ")
    assert said in problem


def test_missing_files_are_named(root, check):
    (root / "user01_led.aedat").unlink()
    (root / "user03_led_labels.csv").unlink()
    (root / "user02_led_labels.csv").write_text(HEAD + "\n")
    with (root / "trials_to_test.txt").open("a") as file:
        file.write("user02_led.aedat\nuser99_lab.aedat\n")
    assert check()[:-1] == [
        "trials_to_test.txt names user02_led.aedat, which trials_to_train.txt has too",
        "trials_to_test.txt names user99_lab.aedat, which is missing",
        "trials_to_train.txt names user01_led.aedat, which is missing",
        "user01_led_labels.csv has no recordings: user01_led.aedat is missing",
        "user02_led_labels.csv names no gesture; expected a line for each",
        "user03_led.aedat has no labels: user03_led_labels.csv is missing",
    ]


def test_a_trial_that_no_list_names_is_not_left_out_in_silence(root, settings, check):
    (root / "trials_to_test.txt").write_text("user03_led.aedat\n")
    (root / "trials_to_train.txt").write_text("user01_led.aedat\nuser02_led.aedat\n")
    said = "user04_led.aedat is in neither trials_to_train.txt nor trials_to_test.txt"
    assert check()[0] == said
    with pytest.raises(UserError, match=said):
        prepare(load_config(None, settings))


def test_a_class_without_a_gesture_is_named(root, check):
    for table in root.glob("*_labels.csv"):
        table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    problem, _ = check()
    assert "has no folder for the class(es) other_gestures of" in problem


@pytest.mark.parametrize("damage", [b"", b"#!AER-DAT3.1\r\n#Format: RAW\r\n", None])
def test_damaged_recordings_are_named(root, check, settings, damage):
    path = root / "user04_led.aedat"
    path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    problems = check()[:-1]
    assert len(problems) == 11
    assert all(problem.startswith("user04_led.aedat (") for problem in problems)
    with pytest.raises(UserError, match=r"user04_led\.aedat"):
        prepare(load_config(None, settings))


def test_another_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no userNN_<lighting>\.aedat files of DVS128 Gesture"):
        list_dvs_gesture(tmp_path, READERS, "recordings")
