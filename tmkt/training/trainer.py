"""The training loop: optimiser steps, validation, metrics, checkpoints; a stopped run resumes exactly.

All randomness of optimiser step k comes from a generator seeded by (seed, k), so that the state is only the weights,
the optimiser and the step. Every process draws the whole batch of a step and computes its share, so that N processes
with batch B do the same as one process with batch N B.
"""

import math
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NoReturn

import torch
from accelerate.utils import gather_object
from torch import Tensor

from tmkt_kernels.nn import convert_sync_batchnorm

from ..config import TWO_STREAMS, Config
from ..data import Augmentation, EventFrames, RunData, prepare, sample_pairs
from ..distributed import peers_named, run_on_main_process
from ..errors import DamagedError, Interrupted, UserError
from ..method.teacher import Targets, teacher_targets
from ..method.transfer import Streams, TransferTask, build_streams, phases
from ..models.finite import check_finite
from ..progress import TrainingProgress, count, say
from ..seeding import step_generator, step_seed
from ..stages import stage
from .accelerator import make_accelerator
from .checkpoint import (
    STATE,
    TASK,
    Checkpoint,
    check_moments,
    check_tensors,
    optimizer_tensors,
    restore_optimizer,
    trained_parameters,
)
from .evaluation import Score, evaluate
from .identity import run_identity
from .introduction import environment, introduction, warn_of_copies
from .memory import check_size, enough_memory
from .network import build_model
from .run_folder import RunFolder
from .schedules import learning_rate, progress
from .signals import noted_signals
from .tensorboard import Curves
from .train_state import TrainState


def train(config: Config, data: RunData | None = None, introduce: bool = True) -> Score:
    """Train the run that `config` describes; return the score on its test recordings. See `Trainer.run`.

    If several processes train together, each calls `distributed.shut_down` after its last run.
    """
    for key, chosen in {"patience": config.train.patience is not None, "select": config.train.select == "best"}.items():
        if chosen and config.data.events.validation_per_class == 0:
            raise UserError(f"train.{key}: needs validation recordings; set data.events.validation_per_class above 0")
    check_size(config, int(os.environ.get("WORLD_SIZE", 1)))
    try:
        with enough_memory(config), peers_named(config.train):
            build_model(config, 1)  # raises for an impossible model before minutes of loading
            return Trainer(config, data or prepare(config)).run(introduce)
    except Interrupted:
        raise
    except KeyboardInterrupt:  # at a point where nothing more can be saved
        saved = RunFolder(config.out).checkpoints.steps()
        how = "nothing is saved yet; run the same command again to start over"
        if saved:
            how = f"run the same command again to resume from step {saved[-1]}"
        raise Interrupted(f"interrupted; {how}") from None


class Trainer:
    """One run: its task, optimiser and folder. `run()` trains to the end and scores the test recordings once."""

    def __init__(self, config: Config, data: RunData) -> None:
        self.config = config
        data.check_made_for(config)
        self.folder, self.identity = RunFolder(config.out), run_identity(config, data.record)
        idle_head = config.model.heads == 2 and config.transfer.method not in TWO_STREAMS
        self.accelerator = make_accelerator(config.train, unused_parameters=idle_head)
        self.device, self.processes = self.accelerator.device, self.accelerator.num_processes
        self.batch = config.train.batch * config.train.accumulate * self.processes
        self.model = build_model(config, len(data.classes))
        task = TransferTask(self.model, config.transfer, config.model.neuron.v_threshold, config.data.time_steps)
        if self.processes > 1:
            if config.transfer.streams == "domains":
                raise UserError("transfer.streams: domains is for one process; set it to separate, or start one")
            convert_sync_batchnorm(task)
        if config.train.compile:
            self.model.backbone.compile()  # in place, so that the names of the weights stay the same
        trained = trained_parameters(task).values()
        optimizer = torch.optim.AdamW(trained, config.train.lr, weight_decay=config.train.weight_decay)
        self.task, self.optimizer = self.accelerator.prepare(task, optimizer)
        self.update_average, self.scored = task.update_average, task.scored
        self.data = replace(data, train=data.train.to(self.device))
        self.phases = phases(config.transfer, config.train.steps)
        self.augmentation = Augmentation.of(config.data)
        self.targets: Targets | None = None
        self.state = TrainState()
        self.curves: Curves | None = None  # only in the main process

    def run(self, introduce: bool = True) -> Score:
        """Train from the last checkpoint (or the start) to the end, then evaluate on the test recordings.

        introduce: first print network, data, device and folder.

        Raises:
            UserError: the folder is another run's or damaged, a file cannot be written, or the network holds NaN.
            Interrupted: Ctrl-C or SIGTERM; the progress until then is saved.
        """
        try:
            return self._run(introduce)
        finally:
            self.folder.lock.release()

    def _run(self, introduce: bool) -> Score:
        self._resume(run_on_main_process(self._open_folder))
        self._introduce(introduce)
        self.data.train.ready()
        if self.config.transfer.distils:
            self.targets = run_on_main_process(self._teacher_targets).to(self.device)
        if self.accelerator.is_main_process:
            self.curves = Curves(self.folder.tensorboard(), self.state.step + 1)
        with noted_signals() as signals:
            self._train(signals)
        if self.config.train.select == "best":
            self._take_best()
        test = self.data.test
        say(f"{self.config.transfer.method}, step {self.state.step}: testing on {count(len(test), 'recording')}")
        score = self._score("test", test)
        if self.curves is not None:
            self.curves.close()
            predictions = zip(test.names, test.labels.tolist(), score.predicted, strict=True)
            self.folder.finish(predictions, self.scored.state_dict(), self.identity)
        return score

    def _train(self, signals: Sequence[int]) -> None:
        """Run the remaining steps; `signals`: those received in the meantime."""
        train, state, name = self.config.train, self.state, self.config.transfer.method
        began = time.monotonic() - state.seconds
        self.task.train()
        with TrainingProgress(name, train.steps, state.step) as progress:
            while not self._finished():
                values = self.train_step()
                state.step += 1
                state.seconds = time.monotonic() - began
                progress.update(state.step, self._log(values) if self._due(train.log_every) else None)
                improved = self._due(train.eval_every) and self._validate()
                # Validation is part of the step, so that a resumed run continues after it.
                state.seconds = time.monotonic() - began
                stopping = self._is_told_to_stop(signals)
                if improved or stopping or self._due(train.checkpoint_every) or self._finished():
                    self._save()
                if stopping:
                    self._stop(signals)
        if state.step < train.steps:
            why = f"validation has not improved since step {state.best_step} (train.patience={train.patience})"
            say(f"{name}, step {state.step}/{train.steps}: stopped early, {why}")

    def _due(self, every: int) -> bool:
        """Return whether the step just done is one of every `every`, or the last."""
        return self.state.step % every == 0 or self.state.step == self.config.train.steps

    def _finished(self) -> bool:
        train = self.config.train
        return self.state.step >= train.steps or (train.patience is not None and self.state.stale >= train.patience)

    def train_step(self) -> dict[str, Tensor]:
        """One optimiser step -> loss, its parts and accuracy, means over this process's passes."""
        lr = learning_rate(self.state.step, self.config.train.lr, self.config.train.warmup, self.phases)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        passes = [self._train_pass(number) for number in range(self.config.train.accumulate)]
        self.update_average(self.state.step + 1)
        values = {name: torch.stack([values[name] for values in passes]).mean() for name in passes[0]}
        if "ce_mixed" in values and self.config.transfer.schedule == "loss":
            self.state.see_loss(float(self.accelerator.reduce(values["ce_mixed"].float(), "mean")))
        return values

    def _train_pass(self, number: int) -> dict[str, Tensor]:
        """Forward and backward of one share of the step's batch, and after the last pass the optimiser's step."""
        streams = self._streams(number)
        with self.accelerator.accumulate(self.task):
            with stage("forward"):
                result = self.task(*streams)
            with stage("backward"):
                self.accelerator.backward(result["loss"])
            with stage("optimiser"):
                self.optimizer.step()
                self.optimizer.zero_grad()
        accuracy = (result["logits"].mean(0).argmax(1) == streams.classes).float().mean()
        return {**result["parts"], "loss": result["loss"].detach(), "accuracy": accuracy}

    def _streams(self, number: int) -> Streams:
        """Draw the step's whole batch, and build the sequences of the share of pass `number`."""
        config, size = self.config, self.config.train.batch
        share = number * self.processes + self.accelerator.process_index
        # For layers that use the default generator.
        torch.manual_seed(step_seed(config.seed, self.state.step, share))
        generator = step_generator(config.seed, self.state.step)
        with stage("data"):
            pairs = sample_pairs(self.data.train, self.batch, generator, self.augmentation)
        with stage("mixing"):
            return build_streams(
                config.transfer,
                self.data.train,
                pairs,
                progress=progress(config, self.state, len(self.data.classes)),
                event_scale=config.data.events.scale,
                generator=generator,
                targets=self.targets,
                share=slice(share * size, (share + 1) * size),
            )

    def _log(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Record the values of a step, means over the processes; return loss and accuracy."""
        means = self.accelerator.reduce(torch.stack([value.float() for value in values.values()]), "mean")
        logged = dict(zip(values, means.tolist(), strict=True))
        if not math.isfinite(logged["loss"]):
            raise UserError(
                f"training: the loss is {logged['loss']} at step {self.state.step}; lower train.lr, or use precision "
                "fp32"
            )
        self._check_finite()
        self._record("train", {**logged, "lr": self.optimizer.param_groups[0]["lr"]})
        return {key: logged[key] for key in ("loss", "accuracy")}

    def _validate(self) -> bool:
        """Score the validation recordings, if there are any; return True if it is the best score so far."""
        if not len(self.data.validation):
            return False
        score = self._score("validation", self.data.validation)
        improved = self.state.validated(score)
        share = f"{score.accuracy:.3f} ({score.correct}/{score.total})"
        place = f"{self.config.transfer.method}, step {self.state.step}/{self.config.train.steps}"
        say(f"{place}: validation accuracy {share}")
        return improved

    def _score(self, part: str, events: EventFrames) -> Score:
        """Evaluate in float32, whatever the training's precision, with a share per process, and log the score."""
        self._check_finite()
        rank, every = self.accelerator.process_index, self.processes
        own = EventFrames(events.frames[:, rank::every], events.labels[rank::every], events.names[rank::every])
        try:
            score = evaluate(self.scored, own, self.config.data.events.scale, self.device)
        except UserError as error:
            raise UserError(f"{part} at step {self.state.step}: {error}") from error
        if every > 1:
            score = Score.join(gather_object([score]))
        values = {"accuracy": score.accuracy, "correct": score.correct, "total": score.total, "loss": score.loss}
        self._record(part, values)
        return score

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        if self.curves is None:
            return
        state = self.state
        self.folder.append(kind, state.step, {"seconds": round(state.seconds, 3), **values})
        self.curves.add(state.step, {f"{kind}/{name}": value for name, value in values.items()})

    def _check_finite(self) -> None:
        """Raise UserError if weights, statistics or the optimiser's moments hold NaN or infinity."""
        task = self.accelerator.unwrap_model(self.task)
        tensors = {**task.state_dict(), **optimizer_tensors(self.optimizer, task)}
        check_finite(
            tensors,
            f"training: at step {self.state.step}",
            "lower train.lr or data.events.scale, or use precision fp32",
        )

    def _is_told_to_stop(self, signals: Sequence[int]) -> bool:
        """Return whether a signal came. With several processes, to any of them, as agreed when they log anyway."""
        if self.processes == 1:
            return bool(signals)
        if not self._due(self.config.train.log_every):
            return False
        received = torch.tensor(float(bool(signals)), device=self.device)
        return bool(self.accelerator.reduce(received, "sum").item() > 0)

    def _stop(self, signals: Sequence[int]) -> NoReturn:
        self.accelerator.wait_for_everyone()  # an early exit would end the process that writes, too
        status = 128 + (signals[0] if signals else signal.SIGTERM)
        raise Interrupted(f"interrupted; run the same command again to resume from step {self.state.step}", status)

    # The run's folder

    def _open_folder(self) -> Checkpoint | None:
        """Begin the run's folder, or find the checkpoint at which its run resumes."""
        self.folder.begin(self.config, self.data.record)
        saved = self.folder.checkpoints.newest(self._check)
        if saved is not None and saved.state["processes"] != self.processes:
            raise UserError(
                f"out: processes of the run in {self.folder}: {saved.state['processes']}, now {self.processes}. Its "
                "batch would change; start the same number again, or choose another out="
            )
        self.folder.rewind(-1 if saved is None else saved.state["step"])
        self.folder.append("environment", 0 if saved is None else saved.state["step"], self._environment())
        return saved

    def _environment(self) -> dict[str, Any]:
        return {
            **environment(self.device),
            "processes": self.processes,
            "global_batch": self.batch,
            "precision": self.config.train.precision,
            "compile": self.config.train.compile,
        }

    def _introduce(self, in_full: bool) -> None:
        """Print what begins or resumes here."""
        if in_full:
            parameters = sum(parameter.numel() for parameter in self.model.parameters())
            for line in introduction(self.config, self.data, self.device, parameters, self.batch, self.processes):
                say(line)
        warn_of_copies(self.data.record)
        train, step = self.config.train, self.state.step
        if step:
            doing = "already trained, now at" if self._finished() else "resuming from"
            say(f"{self.folder}: {doing} step {step} of {train.steps}")
        if train.compile and not self._finished():
            say(f"{self.config.transfer.method}, first step: compiling the backbone, which takes a while")

    def _teacher_targets(self) -> Targets:
        return teacher_targets(self.config, self.data.train, self.folder.teacher, self.identity).to("cpu")

    def _save(self) -> None:
        self._check_finite()
        if not self.accelerator.is_main_process:
            return
        task, scaler = self.accelerator.unwrap_model(self.task), self.accelerator.scaler
        optimizer = optimizer_tensors(self.optimizer, task)
        state = {
            "run": self.identity,
            "processes": self.processes,
            "moments": len(optimizer),
            "scaler": None if scaler is None else scaler.state_dict(),  # fp16
            **asdict(self.state),
        }
        checkpoint = Checkpoint(task.state_dict(), optimizer, state)
        self.folder.save_checkpoint(
            self.state.step, checkpoint, self.config.train.keep_checkpoints, self.state.best_step
        )

    def _check(self, saved: Checkpoint) -> None:
        """Raise if a checkpoint, whole by its checksums, was not written by this run."""
        task = self.accelerator.unwrap_model(self.task)
        if saved.state.get("run") != self.identity:
            raise UserError(
                f"out: the checkpoint of step {saved.state['step']} in {self.folder.checkpoints.path} is of another "
                "run, of other settings or other data; remove it, or choose another out="
            )
        check_tensors(saved.weights, task.state_dict(), TASK)
        check_moments(saved.optimizer, task, saved.state.get("moments"))
        TrainState.of(saved.state)
        scaler = self.accelerator.scaler
        expected = None if scaler is None else _kinds(scaler.state_dict())
        if type(saved.state.get("processes")) is not int or _kinds(saved.state.get("scaler")) != expected:
            raise DamagedError(f"{STATE} lacks a value, or has one of another kind")
        try:
            check_finite({**saved.weights, **saved.optimizer}, "its tensors", "no run should have written that")
        except UserError as error:
            raise DamagedError(str(error)) from error

    def _resume(self, saved: Checkpoint | None) -> None:
        if saved is None:
            return
        task = self.accelerator.unwrap_model(self.task)
        task.load_state_dict(saved.weights)
        restore_optimizer(self.optimizer, task, saved.optimizer)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
        self.state = TrainState.of(saved.state)

    def _take_best(self) -> None:
        best = self.state.best_step
        assert best is not None  # the last step is always validated

        def load() -> dict[str, Tensor]:
            try:
                checkpoint = self.folder.checkpoints.load(best)
                self._check(checkpoint)
            except DamagedError as error:
                raise UserError(
                    f"out: {self.folder} has a damaged best checkpoint, step {best} ({error}); train again in another "
                    "out="
                ) from error
            return checkpoint.weights

        self.accelerator.unwrap_model(self.task).load_state_dict(run_on_main_process(load))


def _kinds(values: Any) -> dict[str, type] | None:
    """Return the keys of a dictionary and the kinds of its values; None for anything else."""
    return {key: type(value) for key, value in values.items()} if isinstance(values, dict) else None
