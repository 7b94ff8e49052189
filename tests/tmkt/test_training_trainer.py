"""The training loop: learning, a run's files, its options, evaluation."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from filelock import FileLock
from safetensors.torch import load_file

from tmkt.config import load_config
from tmkt.data import prepare
from tmkt.errors import UserError
from tmkt.seeding import step_seed
from tmkt.training import checkpoint as ckpt
from tmkt.training import trainer
from tmkt.training.evaluation import Score, evaluate, evaluate_run
from tmkt.training.run_folder import RunFolder
from tmkt.training.schedules import learning_rate, progress
from tmkt.training.train_state import TrainState
from tmkt.training.trainer import Trainer, train
from tmkt_kernels import backends


@pytest.fixture
def own_accelerator():
    """Accelerate has one precision per process; forget it before and after."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def test_a_run_learns_and_leaves_its_files(tiny):
    config = tiny.replace(train__steps=60, train__lr=0.01, train__checkpoint_every=30, transfer__method="events_only")
    score = train(config)
    assert score.total == 9
    assert score.accuracy >= 7 / 9  # the classes lie on separate rows
    out = Path(config.out)
    records = RunFolder(out).metrics()
    assert records[0]["kind"] == "environment"
    assert records[0]["backends"]["lif"] in ("native", "reference")
    assert (records[0]["processes"], records[0]["precision"], records[0]["global_batch"]) == (1, "fp32", 6)
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(2, 61, 2))
    assert [r["step"] for r in records if r["kind"] == "validation"] == list(range(4, 61, 4))
    assert [r for r in records if r["kind"] == "test"] == [records[-1]]  # once, at the end
    assert records[-1]["correct"] == score.correct
    assert load_config(out / "config.yaml") == config
    assert list((out / "tensorboard").iterdir())
    assert not list(out.rglob(".*.tmp"))
    assert len(RunFolder(out).split()["test"]) == 9


def test_two_processes_cannot_train_in_one_folder(tiny):
    lock = FileLock(Path(tiny.out) / ".lock")
    Path(tiny.out).mkdir(parents=True)
    with lock, pytest.raises(UserError, match="another process is training"):
        train(tiny)
    assert train(tiny).total == 9


@pytest.mark.parametrize("method", ["tmkt", "sliding", "finetune"])
def test_every_method_runs_and_its_run_can_be_evaluated(tiny, recordings, method):
    score = train(tiny.replace(transfer__method=method))
    assert evaluate_run(tiny.out) == score
    others = evaluate_run(tiny.out, recordings)
    assert others.total == 24


def test_evaluation_does_not_depend_on_batches_or_training_mode(tiny, monkeypatch):
    data = prepare(tiny)
    train(tiny, data)
    _, model, _ = RunFolder(tiny.out).load_model()
    whole = evaluate(model.train(), data.test, 1.0, torch.device("cpu"))
    assert model.training
    monkeypatch.setattr("tmkt.training.evaluation.EVAL_BATCH", 2)
    parts = evaluate(model, data.test, 1.0, torch.device("cpu"))
    assert (whole.correct, whole.total) == (parts.correct, parts.total)
    assert whole.loss == pytest.approx(parts.loss, rel=1e-5)


def test_a_finished_run_started_again_trains_no_further(tiny):
    score = train(tiny)
    weights = (Path(tiny.out) / "model.safetensors").read_bytes()
    assert train(tiny) == score
    assert (Path(tiny.out) / "model.safetensors").read_bytes() == weights
    assert [r["kind"] for r in RunFolder(tiny.out).metrics()].count("test") == 1


def test_resume_never_refuses_and_leaves_the_run_alone(tiny):
    train(tiny)
    before = (Path(tiny.out) / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="holds a run already; choose another out="):
        train(tiny.replace(resume="never"))
    assert (Path(tiny.out) / "metrics.jsonl").read_bytes() == before


def test_other_settings_or_other_data_do_not_go_on_in_the_same_folder(tiny, recordings):
    train(tiny)
    with pytest.raises(UserError, match=r"other settings \('steps: 8', now 'steps: 10'\)"):
        train(tiny.replace(train__steps=10))
    next((recordings / "0").iterdir()).unlink()
    with pytest.raises(UserError, match="the data has changed"):
        train(tiny)


PREDICTED = (0,) * 9  # of the tiny configuration's test recordings


@pytest.fixture
def told_accuracies(monkeypatch):
    """Validations of a run of 8 steps give 1, 5, 3, 5 of 6 in turn, the last one at a higher loss."""
    told = [(1, 1.0), (5, 0.5), (3, 0.1), (5, 0.6), (1, 1.0)]
    answers = iter([Score(correct, 6, loss, PREDICTED) for correct, loss in told])
    monkeypatch.setattr(trainer, "evaluate", lambda *_: next(answers))


def test_the_best_checkpoint_is_kept_and_can_be_selected(tiny, told_accuracies):
    config = tiny.replace(train__eval_every=2, train__select="best")
    assert train(config) == Score(1, 6, 1.0, PREDICTED)
    folder = Path(config.out) / "checkpoints"
    assert ckpt.Checkpoints(folder).steps() == [4, 6, 8]  # the best, and the two newest
    assert ckpt.Checkpoints(folder).load(8).state["best_step"] == 4
    best, exported = ckpt.Checkpoints(folder).load(4).weights, load_file(Path(config.out) / "model.safetensors")
    assert all(torch.equal(exported[name], best[f"model.{name}"]) for name in exported)
    last = ckpt.Checkpoints(folder).load(8).weights
    assert not all(torch.equal(exported[name], last[f"model.{name}"]) for name in exported)
    (folder / "step-00000004/task.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"damaged best checkpoint, step 4 \(task\.safetensors \(0 bytes\)"):
        train(config)


def test_a_run_stops_early_and_stays_finished(tiny, told_accuracies, capsys):
    config = tiny.replace(train__eval_every=2, train__patience=1, train__checkpoint_every=8)
    assert train(config).loss == 0.6  # the fourth result is that of its test
    assert RunFolder(config.out).checkpoints.steps() == [4, 6]
    assert re.search(r"step 6/8: stopped early, .* not improved since step 4", capsys.readouterr().err)
    assert [r["step"] for r in RunFolder(config.out).metrics() if r["kind"] == "train"] == [2, 4, 6]
    assert train(config).loss == 1.0  # and so is the fifth, because it trained and validated no further


@pytest.mark.parametrize("key", ["train__patience", "train__select"])
def test_options_that_validate_need_recordings_for_it(tiny, key):
    value = {"train__patience": 2, "train__select": "best"}[key]
    with pytest.raises(UserError, match=r"needs validation recordings; set data\.events\.validation_per_class above 0"):
        train(tiny.replace(data__events__validation_per_class=0, **{key: value}))


def test_accumulated_passes_give_the_gradient_of_the_whole_batch(tiny):
    data, results = prepare(tiny), []
    for batch, accumulate in ((12, 1), (4, 3)):
        trainer = Trainer(tiny.replace(train__batch=batch, train__accumulate=accumulate, transfer__da_weight=0.0), data)
        trainer.task.eval()  # neither batch norm nor CKA, which see one pass at a time
        trainer.state.step = 2
        results.append((trainer.train_step(), trainer.model.state_dict(), trainer.optimizer.state_dict()["state"]))
    (values, weights, moments), (again, same, alike) = results
    for name in values:
        torch.testing.assert_close(again[name], values[name])
    for index in moments:
        torch.testing.assert_close(alike[index]["exp_avg"], moments[index]["exp_avg"], rtol=1e-3, atol=1e-7)
    for name in weights:
        torch.testing.assert_close(same[name], weights[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_backbone_trains_to_the_same_losses(tiny, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # starting workers takes longer than compiling
    config = tiny.replace(train__steps=2, train__log_every=1, model__options={"channels": [4]})
    config, losses = config.replace(transfer__method="events_only"), []
    for compiled in (False, True):
        run = config.replace(train__compile=compiled, out=f"{config.out}-{compiled}")
        train(run)
        losses.append([r["loss"] for r in RunFolder(run.out).metrics() if r["kind"] == "train"])
        assert RunFolder(run.out).metrics()[0]["compile"] is compiled
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    compiled, plain = (RunFolder(f"{config.out}-{compiled}").load_model()[1] for compiled in (True, False))
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_bfloat16_trains_and_its_test_score_is_that_of_eval(tiny, own_accelerator):
    score = train(tiny.replace(train__precision="bf16"))
    assert RunFolder(tiny.out).metrics()[0]["precision"] == "bf16"
    assert evaluate_run(tiny.out) == score
    weights = load_file(Path(tiny.out) / "model.safetensors")
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in weights.values())


def test_fp16_on_the_cpu_is_an_error(tiny):
    with pytest.raises(UserError, match=r"train\.precision: fp16 needs a GPU"):
        train(tiny.replace(train__precision="fp16"))


def test_shares_of_an_evaluation_are_joined():
    shares = [Score(2, 3, 0.5, (0, 2, 4)), Score(1, 2, 1.0, (1, 3))]
    assert Score.join(shares) == Score(3, 5, pytest.approx(0.7), (0, 1, 2, 3, 4))


def test_damaged_weights_are_an_error(tiny):
    train(tiny)
    path = Path(tiny.out) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        RunFolder(tiny.out).load_model()


def test_learning_rate_warms_up_falls_to_zero_and_starts_anew_in_each_phase():
    rates = [learning_rate(k, 1.0, 2, [10, 10]) for k in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[:10] == rates[10:]
    assert rates[2:10] == sorted(rates[2:10], reverse=True)
    assert 0 < rates[9] < 0.05
    assert learning_rate(0, 1.0, 0, [1]) == 1.0


def test_steps_and_seeds_have_unrelated_generators():
    assert len({step_seed(seed, step) for seed in range(10) for step in range(10)}) == 100


def test_a_loss_that_is_not_finite_stops_the_run(tiny):
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step"):
        train(tiny.replace(train__lr=1e30))


def test_an_unfinished_run_cannot_be_evaluated(tmp_path):
    with pytest.raises(UserError, match=r"config\.yaml is missing; expected the folder of a finished"):
        RunFolder(tmp_path).load_model()


def test_a_backend_that_cannot_serve_is_an_error_before_loading(tiny, monkeypatch):
    # The tests may run Triton's interpreter, so the reason is planted, and only its way to the user is tested here.
    for device in ("cpu", "cuda"):
        monkeypatch.setitem(backends.PROBLEMS, ("triton", device), "there is no such device; take another")
    with pytest.raises(UserError, match=r"model\.neuron: lif: backend 'triton' cannot serve .* no such device"):
        train(tiny.replace(model__neuron__backend="triton", data__events__root="not even looked at"))


def test_progress_of_schedule_loss_is_that_of_the_mixed_streams_loss(tiny):
    config = tiny.replace(transfer__schedule="loss", transfer__ratio=0.0, transfer__ratio_end=1.0)
    state = TrainState(step=4)
    assert progress(config, state, 3) == 0
    state.see_loss(math.log(3))
    assert progress(config, state, 3) == 0
    state.see_loss(0.0)
    assert progress(config, state, 3) == pytest.approx(0.1)
    assert progress(tiny, state, 3) == 4 / tiny.train.steps
    assert progress(config.replace(transfer__method="sliding"), state, 3) == 4 / tiny.train.steps


def test_averaged_weights_are_scored_and_exported(tiny):
    config = tiny.replace(transfer__average=0.9)
    trainer = Trainer(config, prepare(config))
    score = trainer.run()
    exported = load_file(Path(config.out) / "model.safetensors")
    assert all(torch.equal(exported[name], value) for name, value in trainer.scored.state_dict().items())
    assert not torch.equal(exported["heads.event.weight"], trainer.model.heads["event"].weight)
    assert evaluate_run(config.out) == score


def test_the_teacher_of_ckd_teaches_tmkt_too(tiny):
    config = tiny.replace(transfer__distillation=True, transfer__teacher={"steps": 2, "batch": 4})
    train(config)
    assert any("kd" in record for record in RunFolder(config.out).metrics())


def test_statistics_of_domains_are_for_one_process(tiny, monkeypatch):
    two = SimpleNamespace(device=torch.device("cpu"), num_processes=2)
    monkeypatch.setattr(trainer, "make_accelerator", lambda *_, **__: two)
    with pytest.raises(UserError, match=r"^transfer.streams: domains is for one process"):
        Trainer(tiny.replace(transfer__streams="domains"), prepare(tiny))
