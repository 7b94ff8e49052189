"""NaN and infinity stop a run before it overwrites anything good; the error has their name and step."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tmkt.data import prepare
from tmkt.errors import UserError
from tmkt.method.teacher import teacher_targets
from tmkt.models import create_model
from tmkt.models.finite import check_finite, finite_inputs
from tmkt.training.run_folder import RunFolder
from tmkt.training.trainer import Trainer, train

METHODS = ("bridge", "tmkt", "sliding", "joint", "ckd", "finetune", "static_only", "events_only")


def spoil(monkeypatch, at_step, change):
    """Apply `change` to the trainer after optimiser step `at_step`."""
    step = Trainer.train_step

    def spoils(self):
        values = step(self)
        if self.state.step + 1 == at_step:
            with torch.no_grad():
                change(self)
        return values

    monkeypatch.setattr(Trainer, "train_step", spoils)


def conv(trainer):
    return next(p for name, p in trainer.model.named_parameters() if "conv" in name)


@pytest.mark.slow
@pytest.mark.parametrize("classification", ["ce", "tet"])
@pytest.mark.parametrize("method", METHODS)
def test_nan_in_a_weight_stops_every_method(tiny, monkeypatch, method, classification):
    spoil(monkeypatch, 3, lambda trainer: conv(trainer).view(-1)[0].fill_(float("nan")))
    config = tiny.replace(transfer__method=method, transfer__classification=classification, transfer__teacher__steps=1)
    with pytest.raises(UserError, match=r"at step [34]: model\.backbone\..*conv\.weight holds NaN"):
        train(config)
    assert RunFolder(tiny.out).checkpoints.steps() == [2]
    assert not (Path(tiny.out) / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("classification", ["ce", "tet"])
@pytest.mark.parametrize("method", METHODS)
def test_events_scaled_beyond_float32_stop_every_method(tiny, method, classification):
    config = tiny.replace(transfer__method=method, transfer__classification=classification, transfer__teacher__steps=1)
    with pytest.raises(UserError, match=r"(holds|is given|loss is) (NaN|nan|inf)"):
        train(config.replace(data__events__scale=1e38))
    assert not (Path(tiny.out) / "model.safetensors").exists()


SPOILT = {
    "parameter": (
        lambda t: t.model.heads["event"].bias.fill_(float("inf")),
        r"model\.heads\.event\.bias holds infinity",
    ),
    "buffer": (lambda t: next(iter(t.model.buffers())).fill_(float("nan")), r"model\..*running_mean holds NaN"),
    "moment": (
        lambda t: t.optimizer.state_dict()["state"][0]["exp_avg_sq"].fill_(float("inf")),
        r"exp_avg_sq\.model\..* holds infinity",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_checkpoint_is_checked_also_between_log_points(tiny, monkeypatch, what):
    change, message = SPOILT[what]
    spoil(monkeypatch, 3, change)
    config = tiny.replace(train__log_every=8, train__eval_every=8, train__checkpoint_every=1)
    with pytest.raises(UserError, match=f"training: at step 3: {message}"):
        train(config)
    assert RunFolder(tiny.out).checkpoints.steps() == [1, 2]  # the good ones still exist


def test_nan_at_the_last_step_is_not_written(tiny, monkeypatch):
    config = tiny.replace(train__log_every=100, train__eval_every=100, train__checkpoint_every=100)
    spoil(monkeypatch, 8, lambda trainer: conv(trainer).fill_(float("nan")))
    with pytest.raises(UserError, match=r"at step 8: .*conv\.weight holds NaN"):
        train(config)
    assert not (Path(tiny.out) / "model.safetensors").exists()


def test_a_checkpoint_with_nan_is_passed_over(tiny, monkeypatch, capsys):
    data = prepare(tiny)
    monkeypatch.setattr(Trainer, "_check_finite", lambda self: None)
    spoil(monkeypatch, 8, lambda trainer: conv(trainer).fill_(float("nan")))
    with pytest.raises(UserError):
        train(tiny, data)
    monkeypatch.undo()
    whole = train(tiny.replace(out=tiny.out + "-whole"), data)
    capsys.readouterr()
    assert train(tiny, data) == whole
    assert "resuming from step 6 of" in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_run_with_nan_cannot_be_evaluated(tiny, value):
    train(tiny)
    path = Path(tiny.out) / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "running_var" in name)
    weights[name][0] = value
    save_file(weights, path)
    with pytest.raises(UserError, match=rf"model\.safetensors: {name} holds (NaN|infinity)"):
        RunFolder(tiny.out).load_model()


def test_a_teacher_with_nan_is_not_written(tiny, tmp_path):
    config = tiny.replace(transfer__method="ckd", transfer__teacher__steps=2, transfer__teacher__lr=1e30)
    path = tmp_path / "teacher.safetensors"
    with pytest.raises(UserError, match=r"teacher: .* holds (NaN|infinity)"):
        teacher_targets(config, prepare(config).train, path)
    assert not path.exists()


def test_a_step_that_the_gradient_scaler_skips_is_no_error(tiny):
    """Infinite gradients of half precision are dropped together with their step, so that the network stays finite."""
    trainer = Trainer(tiny, prepare(tiny))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15)
    parameter = conv(trainer)
    parameter.grad = torch.full_like(parameter, float("inf"))
    scaler.scale(torch.ones(()))  # creates the scaler's state
    scaler.step(trainer.optimizer.optimizer)
    scaler.update()
    trainer._check_finite()


def test_the_first_tensor_that_is_not_finite_is_named():
    good = {"a": torch.zeros(3), "n": torch.tensor(2), "e": torch.empty(0), "h": torch.full((2,), 3e38)}
    check_finite(good, "x", "do")
    for kind, value in (("NaN", float("nan")), ("infinity", float("-inf"))):
        with pytest.raises(UserError, match=f"x: b holds {kind}; do"):
            check_finite({**good, "b": torch.tensor([1.0, value]), "c": torch.tensor(float("nan"))}, "x", "do")


def test_a_layer_that_is_given_nan_is_named():
    model = create_model("small", num_classes=3, size=(16, 16), heads=1, neuron={}, channels=[4, 8])
    x_seq = torch.rand(2, 1, 2, 16, 16)
    with finite_inputs(model):
        model(x_seq)
    with pytest.raises(UserError, match=r"the spiking layer before\.0.* is given NaN"), finite_inputs(model):
        model(x_seq * float("nan"))
    assert not any(module._forward_pre_hooks for module in model.modules())
