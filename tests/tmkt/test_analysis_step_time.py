"""`tmkt profile`: the stages of a training step, for a configuration and for a run."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from tmkt.analysis.step_time import STAGES, step_times, variants
from tmkt.cli import main
from tmkt.config import load_config
from tmkt.data import prepare
from tmkt.errors import UserError
from tmkt.stages import timed
from tmkt.training.trainer import Trainer, train


@pytest.fixture
def config_file(tiny, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny.dump())
    return path


def test_a_configuration_is_timed_for_each_method(config_file, tiny, tmp_path, capsys):
    out = tmp_path / "profile"
    methods = ["events_only", "tmkt", "camera:data.bridge=camera", "ckd"]
    given = ["profile", str(config_file), "train.batch=5", "--methods", *methods, "--steps", "2", "--out", str(out)]
    assert main(given) == 0
    printed, said = capsys.readouterr()
    for word in ("training step of 5 pairs on cpu", *STAGES.values(), "events_only", "camera", "step"):
        assert word in printed
    assert "1 of 4: timing 2 training steps of events_only" in said
    assert {path.name for path in out.iterdir()} == {"profile.json", "step_time.png"}
    assert (out / "step_time.png").stat().st_size > 100
    times = json.loads((out / "profile.json").read_text())["step_times"]
    assert [each["method"] for each in times] == ["events_only", "tmkt", "camera", "ckd"]
    for each in times:
        assert (each["samples"], each["steps"], each["device"]) == (5, 2, "cpu")
        assert list(each["stages"]) == list(STAGES)
        assert (each["stages"]["simulation"] > 0) == (each["method"] == "camera")
        assert all(each["stages"][stage] > 0 for stage in STAGES if stage != "simulation")
        # With two steps the median is the mean, so that the stages add up to the step.
        assert sum(each["stages"].values()) == pytest.approx(each["seconds"])
    assert not Path(tiny.out).exists()


def test_a_run_has_its_training_step_in_its_profile(tiny, capsys):
    train(tiny.replace(train__steps=2))
    assert main(["profile", tiny.out, "--batch", "2", "--steps", "1"]) == 0
    assert "training step of 6 pairs on cpu" in capsys.readouterr().out
    folder = Path(tiny.out) / "profile"
    profile = json.loads((folder / "profile.json").read_text())
    assert [each["method"] for each in profile["step_times"]] == ["tmkt"]
    assert profile["layers"]
    assert {path.name for path in folder.iterdir()} == {"profile.json", "profile.png", "step_time.png"}


def test_a_timed_step_is_the_trainers_own(tiny):
    data = prepare(tiny)
    alone, measured = (Trainer(tiny.replace(train__accumulate=2), data) for _ in range(2))
    for trainer in (alone, measured):
        trainer.task.train()
    values = alone.train_step()
    with timed(measured.device) as seconds:
        torch.testing.assert_close(measured.train_step(), values, rtol=0, atol=0)
    assert seconds.keys() == STAGES.keys() - {"simulation"}
    torch.testing.assert_close(measured.task.state_dict(), alone.task.state_dict(), rtol=0, atol=0)


def test_data_is_prepared_once_for_the_same_settings(tiny, monkeypatch):
    prepared = []

    def noted(config):
        prepared.append(config.data.time_steps)
        return prepare(config)

    monkeypatch.setattr("tmkt.analysis.step_time.prepare", noted)
    given = ["tmkt", "sliding", "short:data.time_steps=2"]
    configs = variants(lambda own: load_config(None, [*map(str, yaml_lines(tiny)), *own]), given)
    assert [each.method for each in step_times(configs, 1)] == ["tmkt", "sliding", "short"]
    assert prepared == [4, 2]


def yaml_lines(config):
    """Return a configuration as overrides."""
    return [f"{key}={json.dumps(value)}" for key, value in yaml.safe_load(config.dump()).items()]


def test_mistakes_are_named(config_file, tmp_path, capsys):
    for given, message in [
        ([str(config_file), "--steps", "0"], "--steps: expected at least 1, got 0"),
        ([str(config_file), "train.step=3"], "the nearest known one is train.steps"),
        ([str(config_file), "--methods", "a:b"], "--methods: expected a method such as tmkt"),
        ([str(tmp_path), "train.steps=3"], "settings go with CONFIG.yaml"),
        ([str(tmp_path / "none.yaml")], "none.yaml: cannot be read"),
    ]:
        assert main(["profile", *given]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UserError, match="--steps"):
        step_times({}, 0)
