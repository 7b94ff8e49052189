"""Configuration: what is read, and what is refused."""

import pytest
import yaml

from tmkt.config import Config, TrainConfig, from_mapping, load_config
from tmkt.errors import UserError


def test_defaults_and_every_dump_read_back_equal():
    config = load_config(None, ["data.size=[28, 20]", "transfer.mag_weight=0.3", "model.options={channels: [4, 8]}"])
    assert config.data.size == (28, 20)
    assert from_mapping(yaml.safe_load(config.dump())) == config


def test_overrides_win_over_the_file_and_leave_the_rest(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("train: {steps: 7, batch: 8}\ndata:\n  events: {train_per_class: 3}\n")
    config = load_config(path, ["train.steps=9", "seed=1"])
    assert (config.train.steps, config.train.batch, config.data.events.train_per_class) == (9, 8, 3)
    assert config.seed == 1
    assert config.train.lr == TrainConfig().lr


def test_numbers_as_people_write_them():
    config = load_config(None, ["train.lr=1e-3", "transfer.da_weight=1"])
    assert config.train.lr == 0.001
    assert isinstance(config.transfer.da_weight, float)


def test_replace_changes_one_dotted_key():
    config = Config().replace(transfer__method="sliding", out="x")
    assert (config.transfer.method, config.out) == ("sliding", "x")
    assert config.replace(transfer__method="tmkt", out=Config().out) == Config()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=1", "unknown key train.stepz; the nearest known one is train.steps"),
        ("tranfer.ratio=1", "unknown key tranfer; the nearest known one is transfer"),
        ("train.steps=0", "train.steps: expected a number at least 1, got 0"),
        ("train.steps=1.5", r"train.steps: expected int, got 1.5 \(float\)"),
        ("train.steps=true", "train.steps: expected int, got True"),
        ("train.steps=many", "train.steps: expected int, got 'many'"),
        ("transfer.ratio=1.2", r"transfer.ratio: expected a number in \[0.0, 1.0\], got 1.2"),
        ("transfer.ratio=.nan", "transfer.ratio: expected a number in"),
        ("train.lr=.nan", "train.lr: expected a number"),
        ("transfer.method=tmk", "transfer.method: expected one of tmkt, sliding.*nearest: tmkt"),
        ("data.size=[34]", r"data.size: expected 2 numbers such as \[34, 34\], got \[34\]"),
        ("data.size=[34, 0]", "data.size: expected a number at least 1, got 0"),
        ("data=3", "data: expected a section of `key: value`, got 3"),
        ("train.steps", "expected section.key=value"),
        ("data.static.kwargs=[1]", "data.static.kwargs: expected dict"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(UserError, match=message):
        load_config(None, [override])


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"configuration .*none.yaml: cannot be read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"bad.yaml: is not YAML"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UserError, match="expected sections"):
        load_config(tmp_path / "list.yaml")


def test_environment_variables(monkeypatch):
    text = {"data": {"static": {"root": "${TMKT_TEST_ROOT:-../here}/x"}}}
    monkeypatch.delenv("TMKT_TEST_ROOT", raising=False)
    assert from_mapping(text).data.static.root == "../here/x"
    monkeypatch.setenv("TMKT_TEST_ROOT", "/there")
    assert from_mapping(text).data.static.root == "/there/x"
    with pytest.raises(UserError, match="environment variable TMKT_TEST_NONE is used"):
        from_mapping({"out": "${TMKT_TEST_NONE}"})
