"""The training loop: optimiser steps, evaluation, metrics, checkpoints; resumes exactly where it stopped.

Everything random in optimiser step k comes from a generator seeded by (seed, k), so weights, optimiser and step are all
the state there is. Every process draws the whole batch of a step and computes its share, so N processes with batch B do
what one process with batch N B does.
"""

import json
import math
import os
import platform
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate.utils import gather_object
from torch import Tensor

import tmkt
from tmkt_kernels import _dispatch
from tmkt_kernels.nn import convert_sync_batchnorm

from .. import atomic_files, tensor_files
from ..config import Config
from ..data import EventFrames, RunData, prepare, sample_pairs
from ..distributed import peers_named, run_on_main_process
from ..errors import DamagedError, Interrupted, UserError
from ..method.teacher import Targets, teacher_targets
from ..method.transfer import TWO_STREAMS, TransferTask, build_streams, phases
from ..models.finite import check_finite
from ..progress import TrainingProgress, count, say
from ..seeding import step_generator, step_seed
from . import checkpoint as ckpt
from .accelerator import make_accelerator
from .evaluation import Score, evaluate, predictions
from .identity import check_same_data, check_same_run, run_identity
from .lock import FolderLock
from .memory import check_size, enough_memory
from .network import build_model
from .signals import noted_signals
from .tensorboard import Curves


def learning_rate(step: int, base: float, warmup: int, phase_steps: list[int]) -> float:
    """Linear warm-up, then a cosine to zero, anew in each phase; `step` counts optimiser steps from 0."""
    start, length = 0, phase_steps[0]
    for length in phase_steps:
        if step < start + length:
            break
        start += length
    warmup = min(warmup, length // 2)
    position = step - start
    if position < warmup:
        return base * (position + 1) / warmup
    return base * 0.5 * (1 + math.cos(math.pi * (position - warmup) / max(1, length - warmup)))


@dataclass
class Place:
    """Where a run stands: what its checkpoints hold besides tensors."""

    step: int = 0  # optimiser steps done
    seconds: float = 0.0
    best_step: int | None = None  # of the best validation so far: by accuracy, and by loss where that is equal
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    stale: int = 0  # validations since the best one

    @staticmethod
    def of(state: dict[str, Any]) -> "Place":
        """The place in a checkpoint's state. Raises DamagedError where a value is missing or of another kind."""
        kinds = {"step": int, "seconds": float, "best_accuracy": float, "best_loss": float, "stale": int}
        best = state.get("best_step")
        right = all(type(state.get(name)) is kind for name, kind in kinds.items())
        if not right or not (best is None or type(best) is int):
            raise DamagedError(f"{ckpt.STATE} lacks a value, or has one of another kind")
        return Place(**{name: state[name] for name in kinds}, best_step=best)


class Trainer:
    """One run: its task, optimiser and files. `run()` trains to the end and scores the test recordings once."""

    def __init__(self, config: Config, data: RunData) -> None:
        self.config, self.data = config, data
        self.out = Path(config.out)
        self.checkpoints = self.out / "checkpoints"
        self.lock = FolderLock(self.out)
        self.identity = run_identity(config, data.record)
        idle_head = config.model.heads == 2 and config.transfer.method not in TWO_STREAMS
        self.accelerator = make_accelerator(config.train, unused_parameters=idle_head)
        self.device, self.processes = self.accelerator.device, self.accelerator.num_processes
        self.batch = config.train.batch * config.train.accumulate * self.processes
        self.model = build_model(config, len(data.classes))
        task = TransferTask(self.model, config.transfer, config.model.neuron.v_threshold, config.data.time_steps)
        if self.processes > 1:
            convert_sync_batchnorm(task)
        if config.train.compile:
            self.model.backbone.compile()  # in place: the names of the weights stay as they are
        optimizer = torch.optim.AdamW(task.parameters(), lr=config.train.lr, weight_decay=config.train.weight_decay)
        self.task, self.optimizer = self.accelerator.prepare(task, optimizer)
        data.train.to(self.device)
        self.phases = phases(config.transfer, config.train.steps)
        padding = config.data.crop_padding
        self.padding = config.data.size[0] // 12 if padding is None else padding
        self.targets: Targets | None = None
        self.at = Place()
        self.curves: Curves | None = None  # the first process has one

    def run(self, introduce: bool = True) -> Score:
        """Train from the last checkpoint (or the start) to the end, then evaluate on the test recordings.

        introduce: first say what is trained on which data, where, and into which folder.

        Raises:
            UserError: the folder is another run's or damaged, a file cannot be written, or the network holds NaN.
            Interrupted: Ctrl-C or SIGTERM; what was done until then is saved.
        """
        try:
            return self._run(introduce)
        finally:
            self.lock.release()

    def _run(self, introduce: bool) -> Score:
        self._resume(run_on_main_process(self._open_folder))
        if introduce:
            for line in self._introduction():
                say(line)
        self._say_copies()
        if self.at.step:
            doing = "already trained, now at" if self._finished() else "resuming from"
            say(f"{self.out}: {doing} step {self.at.step} of {self.config.train.steps}")
        if self.config.transfer.method == "ckd":
            targets = run_on_main_process(
                lambda: teacher_targets(self.config, self.data.train, self.padding, self.identity).to("cpu")
            )
            self.targets = targets.to(self.device)
        if self.accelerator.is_main_process:
            self.curves = Curves(atomic_files.make_folder(self.out, "tensorboard"), self.at.step + 1)
        with noted_signals() as noted:
            self._train(noted)
        if self.config.train.select == "best":
            self._take_best()
        say(f"{self.config.transfer.method}, step {self.at.step}: testing on {count(len(self.data.test), 'recording')}")
        score = self._score("test", self.data.test)
        if self.curves is not None:
            self.curves.close()
            atomic_files.write_text(self.out / "predictions.jsonl", predictions(self.data.test, score))
            tensor_files.write_tensors(self.out / "model.safetensors", self.model.state_dict(), self.identity)
        return score

    def _train(self, noted: list[int]) -> None:
        """The steps that are left; `noted`: signals that came meanwhile."""
        train, at, name = self.config.train, self.at, self.config.transfer.method
        began = time.monotonic() - at.seconds
        self.task.train()
        if train.compile and not self._finished():
            say(f"{name}, first step: compiling the backbone, which takes a while")
        with TrainingProgress(name, train.steps, at.step) as progress:
            while not self._finished():
                values = self._train_step()
                at.step += 1
                at.seconds = time.monotonic() - began
                last, improved = at.step == train.steps, False
                logs = at.step % train.log_every == 0 or last
                logged = self._log_train(values) if logs else None
                progress.update(at.step, logged and {key: logged[key] for key in ("loss", "accuracy")})
                if len(self.data.validation) and (at.step % train.eval_every == 0 or last):
                    score = self._score("validation", self.data.validation)
                    improved = self._compare(score)
                    share = f"{score.accuracy:.3f} ({score.correct}/{score.total})"
                    say(f"{name}, step {at.step}/{train.steps}: validation accuracy {share}")
                # The evaluation above is part of the step: resuming goes on after it.
                at.seconds = time.monotonic() - began
                stops = self._told_to_stop(noted, logs)
                if improved or stops or at.step % train.checkpoint_every == 0 or self._finished():
                    self._save()
                if stops:
                    self._stop(noted)
        if at.step < train.steps:
            why = f"validation has not improved since step {at.best_step} (train.patience={train.patience})"
            say(f"{name}, step {at.step}/{train.steps}: stopped early, {why}")

    def _told_to_stop(self, noted: list[int], logs: bool) -> bool:
        """Whether a signal came; with several processes to any of them, which they settle where they log anyway."""
        if self.processes == 1:
            return bool(noted)
        if not logs:
            return False
        told = torch.tensor(float(bool(noted)), device=self.device)
        return bool(self.accelerator.reduce(told, "sum").item() > 0)

    def _stop(self, noted: list[int]) -> NoReturn:
        self.accelerator.wait_for_everyone()  # one that ended early would take the one that writes with it
        status = 128 + (noted[0] if noted else signal.SIGTERM)
        raise Interrupted(f"interrupted; run the same command again to resume from step {self.at.step}", status)

    def _finished(self) -> bool:
        patience = self.config.train.patience
        return self.at.step >= self.config.train.steps or (patience is not None and self.at.stale >= patience)

    def _train_step(self) -> dict[str, Tensor]:
        """One optimiser step -> loss, its parts and accuracy, means over this process's passes."""
        lr = learning_rate(self.at.step, self.config.train.lr, self.config.train.warmup, self.phases)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        passes = [self._train_pass(number) for number in range(self.config.train.accumulate)]
        return {name: torch.stack([values[name] for values in passes]).mean() for name in passes[0]}

    def _train_pass(self, number: int) -> dict[str, Tensor]:
        """Forward and backward of one share of the step's batch; after the last pass the optimiser's step."""
        config, size = self.config, self.config.train.batch
        share = number * self.processes + self.accelerator.process_index
        # For layers that draw from the default generator.
        torch.manual_seed(step_seed(config.seed, self.at.step, share))
        generator = step_generator(config.seed, self.at.step)
        flip, rotation = config.data.flip, config.data.rotation
        pairs = sample_pairs(self.data.train, self.batch, self.padding, generator, flip=flip, rotation=rotation)
        streams = build_streams(
            config.transfer,
            self.data.train,
            pairs,
            progress=self.at.step / config.train.steps,
            event_scale=config.data.events.scale,
            crop_padding=self.padding,
            generator=generator,
            targets=self.targets,
            share=slice(share * size, (share + 1) * size),
        )
        with self.accelerator.accumulate(self.task):
            result = self.task(*streams)
            self.accelerator.backward(result["loss"])
            self.optimizer.step()
            self.optimizer.zero_grad()
        accuracy = (result["logits"].mean(0).argmax(1) == streams.label).float().mean()
        return {**result["parts"], "loss": result["loss"].detach(), "accuracy": accuracy}

    def _log_train(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Record the values of a step, means over the processes, and return them."""
        means = self.accelerator.reduce(torch.stack([value.float() for value in values.values()]), "mean")
        logged = dict(zip(values, means.tolist(), strict=True))
        if not math.isfinite(logged["loss"]):
            raise UserError(
                f"training: the loss is {logged['loss']} at step {self.at.step}; lower train.lr, or use precision fp32"
            )
        self._check_finite()
        self._record("train", {**logged, "lr": self.optimizer.param_groups[0]["lr"]})
        return logged

    def _score(self, part: str, events: EventFrames) -> Score:
        """Evaluate in float32, whatever the training's precision, every process a share; and log it."""
        self._check_finite()
        rank, every = self.accelerator.process_index, self.processes
        own = EventFrames(events.frames[:, rank::every], events.labels[rank::every], events.names[rank::every])
        try:
            score = evaluate(self.model, own, self.config.data.events.scale, self.device)
        except UserError as error:
            raise UserError(f"{part} at step {self.at.step}: {error}") from error
        if every > 1:
            score = Score.join(gather_object([score]))
        values = {"accuracy": score.accuracy, "correct": score.correct, "total": score.total, "loss": score.loss}
        self._record(part, values)
        return score

    def _check_finite(self) -> None:
        """Raise UserError where weights, statistics or the optimiser's moments hold NaN or infinity."""
        task = self.accelerator.unwrap_model(self.task)
        held = {**task.state_dict(), **ckpt.optimizer_tensors(self.optimizer, task)}
        check_finite(
            held, f"training: at step {self.at.step}", "lower train.lr or data.events.scale, or use precision fp32"
        )

    def _compare(self, score: Score) -> bool:
        """Note a validation; True if it is the best so far."""
        at = self.at
        if (score.accuracy, -score.loss) > (at.best_accuracy, -at.best_loss):
            at.best_step, at.best_accuracy, at.best_loss, at.stale = at.step, score.accuracy, score.loss, 0
            return True
        at.stale += 1
        return False

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        if self.curves is None:
            return
        self.lock.check()
        record = {"kind": kind, "step": self.at.step, "seconds": round(self.at.seconds, 3), **values}
        atomic_files.append(self.out / "metrics.jsonl", json.dumps(record) + "\n")
        self.curves.add(self.at.step, {f"{kind}/{name}": value for name, value in values.items()})

    def _save(self) -> None:
        self._check_finite()
        if not self.accelerator.is_main_process:
            return
        task, scaler = self.accelerator.unwrap_model(self.task), self.accelerator.scaler
        optimizer = ckpt.optimizer_tensors(self.optimizer, task)
        state = {
            "run": self.identity,
            "processes": self.processes,
            "moments": len(optimizer),
            "scaler": None if scaler is None else scaler.state_dict(),  # fp16
            **asdict(self.at),
        }
        self.lock.check()
        ckpt.save_checkpoint(self.checkpoints, self.at.step, ckpt.Checkpoint(task.state_dict(), optimizer, state))
        ckpt.prune(self.checkpoints, self.config.train.keep_checkpoints, self.at.best_step)

    def _open_folder(self) -> ckpt.Checkpoint | None:
        """Begin the run's folder, or find where the run that it holds goes on."""
        atomic_files.make_folder(self.out)
        if not self.lock.acquire():
            raise UserError(f"out: another process is training in {self.out}; choose another out=, or wait")
        config_file, split_file = self.out / "config.yaml", self.out / "split.json"
        if config_file.exists():
            if self.config.resume == "never":
                raise UserError(f"out: {self.out} holds a run already; choose another out=, or resume=auto to go on")
            check_same_run(self.config, self.out)
        if split_file.exists():
            check_same_data(split_file, self.data.record)
        atomic_files.write_text(split_file, json.dumps(self.data.record) + "\n")
        atomic_files.write_text(config_file, self.config.dump())
        saved = ckpt.load_newest(atomic_files.make_folder(self.out, "checkpoints"), self._check)
        if saved is not None and saved.state["processes"] != self.processes:
            raise UserError(
                f"out: processes of the run in {self.out}: {saved.state['processes']}, now {self.processes}. Its batch "
                "would change; start the same number again, or choose another out="
            )
        step = 0 if saved is None else saved.state["step"]
        try:
            ckpt.keep_records(self.out / "metrics.jsonl", step if saved else -1)
        except DamagedError as error:
            raise UserError(
                f"out: {self.out}: {error}; remove it, then run the same command again to resume"
            ) from error
        environment = {"kind": "environment", "step": step, **self._environment()}
        atomic_files.append(self.out / "metrics.jsonl", json.dumps(environment) + "\n")
        return saved

    def _check(self, saved: ckpt.Checkpoint) -> None:
        """Raise where a checkpoint, whole by its checksums, is not one that this run has written."""
        task = self.accelerator.unwrap_model(self.task)
        if saved.state.get("run") != self.identity:
            raise UserError(
                f"out: the checkpoint of step {saved.state['step']} in {self.checkpoints} is of another run, of other "
                "settings or other data; remove it, or choose another out="
            )
        ckpt.check_tensors(saved.weights, task.state_dict(), ckpt.TASK)
        ckpt.check_moments(saved.optimizer, task, saved.state.get("moments"))
        Place.of(saved.state)
        scaler = self.accelerator.scaler
        expected = None if scaler is None else _kinds(scaler.state_dict())
        if type(saved.state.get("processes")) is not int or _kinds(saved.state.get("scaler")) != expected:
            raise DamagedError(f"{ckpt.STATE} lacks a value, or has one of another kind")
        try:
            check_finite({**saved.weights, **saved.optimizer}, "its tensors", "no run should have written that")
        except UserError as error:
            raise DamagedError(str(error)) from error

    def _resume(self, saved: ckpt.Checkpoint | None) -> None:
        if saved is None:
            return
        task = self.accelerator.unwrap_model(self.task)
        task.load_state_dict(saved.weights)
        ckpt.restore_optimizer(self.optimizer, task, saved.optimizer)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
        self.at = Place.of(saved.state)

    def _take_best(self) -> None:
        best = self.at.best_step
        assert best is not None  # the last step is always validated

        def load() -> dict[str, Tensor]:
            try:
                checkpoint = ckpt.load_checkpoint(self.checkpoints, best)
                self._check(checkpoint)
            except DamagedError as error:
                raise UserError(
                    f"out: {self.out} has a damaged best checkpoint, step {best} ({error}); train again in another out="
                ) from error
            return checkpoint.weights

        self.accelerator.unwrap_model(self.task).load_state_dict(run_on_main_process(load))

    def _introduction(self) -> list[str]:
        """A line each for data, model, training, device and folder."""
        config, data = self.config, self.data
        images = count(len(data.train.images), "image") if data.record["static_images"] else "no images"
        parts = f"{len(data.validation)} to validate, {len(data.test)} to test"
        width, height = config.data.size
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        backend = _dispatch.choose("lif", self.device.type, torch.float32, config.model.neuron.backend)
        where = "cpu" if self.device.type == "cpu" else self._environment()["device"]
        threads = f", {count(torch.get_num_threads(), 'thread')}" if self.device.type == "cpu" else ""
        together = f", {self.processes} processes" if self.processes > 1 else ""
        return [
            f"data:   {count(len(data.train.events), 'recording')} to train on, {parts}; {images}",
            f"model:  {config.model.name}, {parameters:,} parameters; {len(data.classes)} classes, "
            f"{count(config.data.time_steps, 'time step')} of {width}x{height} pixels",
            f"method: {config.transfer.method}, {config.train.steps} optimiser steps of {self.batch} samples",
            f"device: {where}{threads}{together}; backend {backend}",
            f"out:    {self.out}",
        ]

    def _say_copies(self) -> None:
        """Say how many recordings are in two parts under two names: scores of these are not of unseen recordings."""
        contents = self.data.record["digests"]
        trained = set(contents["train"])
        for part in ("validation", "test"):
            copies = sum(digest in trained for digest in contents[part])
            if copies:
                say(
                    f"warning: {copies} of the {len(contents[part])} {part} recordings are copies of training ones, or "
                    "look the same to the network; `tmkt data check` names copies, `tmkt eval` counts them separately"
                )

    def _environment(self) -> dict[str, Any]:
        train = self.config.train
        return {
            **environment(self.device),
            "processes": self.processes,
            "global_batch": self.batch,
            "precision": train.precision,
            "compile": train.compile,
        }


def train(config: Config, data: RunData | None = None, introduce: bool = True) -> Score:
    """Train the run that `config` describes; returns the score on its test recordings. See `Trainer.run`.

    Where several processes train together, each calls `distributed.shut_down` after its last run.
    """
    for key, asked in {"patience": config.train.patience is not None, "select": config.train.select == "best"}.items():
        if asked and config.data.events.validation_per_class == 0:
            raise UserError(f"train.{key}: needs validation recordings; set data.events.validation_per_class above 0")
    check_size(config, int(os.environ.get("WORLD_SIZE", 1)))
    try:
        with enough_memory(config), peers_named(config.train):
            build_model(config, 1)  # an impossible model is an error before minutes of loading
            return Trainer(config, data or prepare(config)).run(introduce)
    except Interrupted:
        raise
    except KeyboardInterrupt:  # at a moment when nothing more can be saved
        raise Interrupted(f"interrupted; {_how_to_resume(Path(config.out))}") from None


def _kinds(values: Any) -> dict[str, type] | None:
    """The keys of a dictionary and the kinds of its values; None of anything else."""
    return {key: type(value) for key, value in values.items()} if isinstance(values, dict) else None


def _how_to_resume(out: Path) -> str:
    saved = ckpt.steps(out / "checkpoints")
    if not saved:
        return "nothing is saved yet; run the same command again to start over"
    return f"run the same command again to resume from step {saved[-1]}"


def environment(device: torch.device) -> dict[str, Any]:
    """What a result depends on besides the configuration."""
    return {
        "tmkt": tmkt.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "backends": {op: _dispatch.choose(op, device.type, torch.float32, "auto") for op in ("lif", "mixup")},
    }
