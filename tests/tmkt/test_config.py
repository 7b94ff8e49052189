"""Configuration: accepted and refused settings."""

from pathlib import Path

import pytest
import yaml

from tmkt.config import Config, TrainConfig, TransferConfig, from_mapping, load_config
from tmkt.errors import UserError
from tmkt.training.network import build_model

CONFIGS = Path(__file__).parents[2] / "configs"


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
        ("data={1: 2}", "unknown key data.1; the nearest known one is data"),
        ("train.steps=0", "train.steps: expected an integer of at least 1 such as 400, got 0$"),
        ("train.steps=1.5", "train.steps: expected an integer of at least 1 such as 400, got 1.5$"),
        ("train.steps=1.0", "train.steps: expected an integer of .*, got 1.0$"),
        ("train.steps=true", "train.steps: expected an integer of .*, got True$"),
        ("train.steps=many", "train.steps: expected an integer of .*, got 'many'$"),
        ("train.steps='3'", "train.steps: expected an integer of .*, got '3'$"),
        ("train.steps=null", "train.steps: expected an integer of .*, got None$"),
        ("data.flip=1", "data.flip: expected true or false, got 1$"),
        ("data.flip='true'", "data.flip: expected true or false, got 'true'$"),
        ("out=3", "out: expected a text such as runs/train, got 3$"),
        ("train.lr=true", r"train.lr: expected a number in \[0, 1e\+36\] such as 0.002, got True$"),
        ("train.lr=.nan", "train.lr: expected a number in .*, got nan$"),
        ("transfer.ratio=1.2", r"transfer.ratio: expected a number in \[0, 1\] such as 0.5, got 1.2$"),
        ("transfer.ratio=.nan", "transfer.ratio: expected a number in .*, got nan$"),
        ("transfer.ratio_end=1.2", r"transfer.ratio_end: expected a number in \[0, 1\] or null, got 1.2$"),
        ("data.static.per_class=0", "data.static.per_class: expected an integer of at least 1 or null, got 0$"),
        ("transfer.method=tmk", r"transfer.method: expected one of bridge, tmkt, .*; got 'tmk' \(nearest: tmkt\)$"),
        ("data.size=[34]", r"data.size: expected 2 integers of at least 1 such as \[34, 34\], got \[34\]$"),
        ("data.size=[34, 0]", r"data.size: expected 2 integers of at least 1 .*, got \[34, 0\]$"),
        ("data.size=[34, 3.0]", r"data.size: expected 2 integers of at least 1 .*, got \[34, 3.0\]$"),
        ("data.size=!!set {34: , 3: }", r"data.size: expected 2 integers of at least 1"),
        ("model.neuron.alpha=[1, 2, 3]", r"model.neuron.alpha: expected a finite number or 2 finite numbers"),
        ("model.neuron.alpha=true", r"model.neuron.alpha: expected a finite number or 2 .*, got True$"),
        ("data=3", "data: expected a section of `key: value`, got 3"),
        ("train.steps", "expected section.key=value"),
        ("train.steps.more=1", "train.steps: expected an integer"),
        ("data.static.kwargs=[1]", r"data.static.kwargs: expected a mapping `{text: value}`, got \[1\]$"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(UserError, match=message) as caught:
        load_config(None, [override])
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # nothing of pydantic's is visible


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_say_where_to_download_their_data(path, monkeypatch):
    monkeypatch.delenv("TMKT_DATA", raising=False)
    config = load_config(path)
    stated = (config.data.static.root, config.data.events.root, config.data.events.test_root)
    roots = [root for root in stated if root]
    assert roots
    assert all(root.partition("/")[0] == "data" for root in roots)
    head = path.read_text(encoding="utf-8").partition("\nseed:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert "http" in head
    assert "data/" in head


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"configuration .*none.yaml: cannot be read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"bad.yaml: is not YAML"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UserError, match="expected sections"):
        load_config(tmp_path / "list.yaml")


def test_a_mistake_in_a_file_names_the_file_and_one_in_an_override_does_not(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("train: {steps: 0}")
    with pytest.raises(UserError, match=r"^configuration .*c.yaml: train.steps: expected an integer"):
        load_config(path, ["train.batch=8", "out=e"])  # the message holds an "e" too, but is not about this override
    with pytest.raises(UserError, match=r"^unknown key train.stepz"):
        load_config(path, ["train.steps=1", "train.stepz=1"])
    assert load_config(path, ["train.steps=1"]).train.steps == 1
    with pytest.raises(UserError, match=r"^train.steps: expected an integer .*, got -1"):
        load_config(path, ["train.steps=-1"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Config(seed=-1), "^seed: expected an integer"),
        (lambda: Config(data={"size": [1]}), "^data.size: expected 2 integers"),
        (lambda: TrainConfig(steps=0), "^train.steps: expected an integer"),
        (lambda: TrainConfig(stepz=1), "^unknown key train.stepz; the nearest known one is train.steps"),
        (lambda: TransferConfig(schedule="linear"), "^transfer.ratio_end: schedule linear goes from ratio"),
        (lambda: Config().replace(train__steps="3"), "^train.steps: expected an integer"),
        (lambda: Config.of(3), "^expected a section of `key: value`, got 3"),
    ],
)
def test_sections_that_python_builds_are_checked_too(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3


def test_a_surrogate_of_two_parameters_takes_a_pair():
    config = load_config(None, ["model.neuron.surrogate=leaky_relu", "model.neuron.alpha=[1, 0.25]"])
    assert config.model.neuron.alpha == (1.0, 0.25)
    assert from_mapping(yaml.safe_load(config.dump())) == config
    assert build_model(config, 3).backbone.last.bn.lif().keywords["alpha"] == (1.0, 0.25)


@pytest.mark.parametrize(
    ("surrogate", "alpha", "message"),
    [
        ("triangle", "[1, 0.25]", r"alpha: expected a float for this surrogate, got \(1.0, 0.25\)"),
        ("leaky_relu", "1", r"alpha: expected a pair \(alpha, beta\) of floats for this surrogate, got 1.0"),
        ("fourier", "[1, 2.5]", r"alpha: expected \(frequency, number of terms\), .* got \(1.0, 2.5\)"),
        ("triangle", "0", "alpha: expected a value above 0"),
    ],
)
def test_the_operator_judges_alpha(surrogate, alpha, message):
    config = load_config(None, [f"model.neuron.surrogate={surrogate}", f"model.neuron.alpha={alpha}"])
    with pytest.raises(UserError, match=f"^model.neuron: {message}"):
        build_model(config, 3)


def test_equal_values_are_dumped_without_aliases(tmp_path):
    shared = [1, 2]
    config = Config().replace(model__options={"a": shared, "b": shared})
    (tmp_path / "c.yaml").write_text(config.dump())
    assert load_config(tmp_path / "c.yaml") == config


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
        (f"seed: 1{'0' * 50}", r"seed: expected an integer in \[0, 9223372036854775807\]"),
        (f"train: {{lr: 1{'0' * 400}}}", r"train.lr: expected a number in .*, got 10{79}\.\.\.$"),
        ("train: {lr: .inf}", "train.lr: expected a number in .* got inf"),
        ("model: {neuron: {v_threshold: .nan}}", "model.neuron.v_threshold: expected a finite number .*, got nan"),
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
