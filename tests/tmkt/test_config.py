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


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"the alias \*a is not taken; write its value out"),
        ("out: &a [*a]", r"the alias \*a is not taken"),
        ("data: &a {static: *a}", r"the alias \*a is not taken"),
        ("train: &t {steps: 3}\ndata:\n  <<: *t\n", r"the alias \*t is not taken"),
        ("[" * 3000, "is nested too deeply to be settings"),
        ("{a: " * 3000, "is nested too deeply to be settings"),
        (f"seed: 1{'0' * 5000}", "is not YAML as settings need it"),
        (f"seed: 1{'0' * 50}", r"seed: expected a number in \[0, 9223372036854775807\]"),
        (f"train: {{lr: 1{'0' * 400}}}", "train.lr: expected float"),
        ("train: {lr: .inf}", "train.lr: expected a number in .* got inf"),
        ("model: {neuron: {v_threshold: .nan}}", "model.neuron.v_threshold: expected a number that is finite, got nan"),
        ("out: 2026-99-99", "is not YAML as settings need it"),
        ("train: {steps: 1}\ntrain: {batch: 8}\n", "the key train stands there twice"),
        ("train: {steps: 1, batch: 8, steps: 2}", "the key steps stands there twice"),
        ("out: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("out: !!python/name:os.system", "could not determine a constructor"),
        ("a: 1\n---\na: 2", "is not YAML as settings need it"),
        ("? [1, 2]\n: 3", "is not YAML as settings need it|unknown key"),
        ("3", "expected sections of `key: value`, got int"),
        ("\x00", "is not YAML"),
    ],
)
def test_yaml_that_is_no_settings_is_refused_in_words(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path)


@pytest.mark.parametrize("value", ["&a [*a]", "[" * 3000, "{a: 1, a: 2}", f"1{'0' * 5000}"])
def test_overrides_are_read_as_strictly(value):
    with pytest.raises(UserError, match=r"^override 'model\.options=") as caught:
        load_config(None, [f"model.options={value}"])
    assert len(str(caught.value)) < 500


def test_settings_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"seed: \xff\xfe")
    with pytest.raises(UserError, match="is not YAML"):
        load_config(path)
