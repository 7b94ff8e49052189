"""The training loop: optimiser steps, evaluation, metrics, checkpoints; resumes exactly where it stopped.

Everything random in optimiser step k comes from a generator seeded by (seed, k), so weights, optimiser and step are all
the state there is. Every process draws the whole batch of a step and computes its share, so N processes with batch B do
what one process with batch N B does.
"""

import json
import math
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from filelock import FileLock, Timeout
from rich.progress import TextColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

import tmkt
from tmkt_kernels import _dispatch
from tmkt_kernels.nn import convert_sync_batchnorm

from . import checkpoint as ckpt
from .config import Config
from .data import EventFrames, RunData, prepare, sample_pairs
from .distributed import make_accelerator, on_first
from .errors import UserError
from .evaluation import Score, build_model, evaluate, predictions
from .progress import bar, console
from .teacher import Targets, teacher_targets
from .transfer import TWO_STREAMS, TransferTask, build_streams, phases


def step_seed(seed: int, step: int, share: int = 0) -> int:
    """A seed for one optimiser step, and a share of its batch; SeedSequence keeps neighbouring ones unrelated."""
    return int(np.random.SeedSequence([seed, step, share]).generate_state(1, np.uint64)[0] >> 1)


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


class Trainer:
    """One run: its task, optimiser and files. `run()` trains to the end and scores the test recordings once."""

    def __init__(self, config: Config, data: RunData) -> None:
        self.config, self.data = config, data
        self.out = Path(config.out)
        self.checkpoints = self.out / "checkpoints"
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
        self.writer: SummaryWriter | None = None  # the first process has one

    def run(self) -> Score:
        """Train from the last checkpoint (or the start) to the end, then evaluate on the test recordings."""
        lock = FileLock(self.out / ".lock")  # the system frees it when the process ends, however it ends
        try:
            return self._run(lock)
        finally:
            lock.release()

    def _run(self, lock: FileLock) -> Score:
        self._resume(on_first(lambda: self._open_folder(lock)))
        if self.config.transfer.method == "ckd":
            targets = on_first(lambda: teacher_targets(self.config, self.data.train, self.padding).to("cpu"))
            self.targets = targets.to(self.device)
        if self.accelerator.is_main_process:
            self.writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.at.step + 1)
        self._train()
        if self.config.train.select == "best":
            self._take_best()
        score = self._score("test", self.data.test)
        if self.writer is not None:
            self.writer.close()
            ckpt.write_text(self.out / "predictions.jsonl", predictions(self.data.test, score))
            ckpt.save_weights(self.out / "model.safetensors", self.model.state_dict())
        return score

    def _train(self) -> None:
        train, at, name = self.config.train, self.at, self.config.transfer.method
        began = time.monotonic() - at.seconds
        self.task.train()
        with bar(TextColumn("{task.fields[note]}")) as progress:
            task_id = progress.add_task(name, total=train.steps, completed=at.step, note="")
            while not self._finished():
                values = self._train_step()
                at.step += 1
                at.seconds = time.monotonic() - began
                last, improved = at.step == train.steps, False
                if at.step % train.log_every == 0 or last:
                    self._log_train(values)
                if len(self.data.validation) and (at.step % train.eval_every == 0 or last):
                    score = self._score("validation", self.data.validation)
                    improved = self._compare(score)
                    progress.update(task_id, note=f"validation {score.accuracy:.3f}")
                    seen = f"step {at.step}/{train.steps}, {at.seconds:.0f} s"
                    console.print(f"{name}: {seen}: validation accuracy {score.accuracy:.3f}", highlight=False)
                # The evaluation above is part of the step: resuming goes on after it.
                at.seconds = time.monotonic() - began
                if improved or at.step % train.checkpoint_every == 0 or self._finished():
                    self._save()
                progress.update(task_id, completed=at.step)
        if at.step < train.steps:
            seen = f"{at.stale} validations without a better one than at step {at.best_step}"
            console.print(f"{name}: stopped at step {at.step}: {seen}", highlight=False)

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
        generator = torch.Generator().manual_seed(step_seed(config.seed, self.at.step))
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

    def _log_train(self, values: dict[str, Tensor]) -> None:
        means = self.accelerator.reduce(torch.stack([value.float() for value in values.values()]), "mean")
        logged = dict(zip(values, means.tolist(), strict=True))
        if not math.isfinite(logged["loss"]):
            raise UserError(
                f"training: the loss is {logged['loss']} at step {self.at.step}; lower train.lr, or use precision fp32"
            )
        self._record("train", {**logged, "lr": self.optimizer.param_groups[0]["lr"]})

    def _score(self, part: str, events: EventFrames) -> Score:
        """Evaluate in float32, whatever the training's precision, every process a share; and log it."""
        rank, every = self.accelerator.process_index, self.processes
        own = EventFrames(events.frames[:, rank::every], events.labels[rank::every], events.names[rank::every])
        score = evaluate(self.model, own, self.config.data.events.scale, self.device)
        if every > 1:
            score = Score.join(gather_object([score]))
        values = {"accuracy": score.accuracy, "correct": score.correct, "total": score.total, "loss": score.loss}
        self._record(part, values)
        return score

    def _compare(self, score: Score) -> bool:
        """Note a validation; True if it is the best so far."""
        at = self.at
        if (score.accuracy, -score.loss) > (at.best_accuracy, -at.best_loss):
            at.best_step, at.best_accuracy, at.best_loss, at.stale = at.step, score.accuracy, score.loss, 0
            return True
        at.stale += 1
        return False

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        if self.writer is None:
            return
        record = {"kind": kind, "step": self.at.step, "seconds": round(self.at.seconds, 3), **values}
        _append(self.out / "metrics.jsonl", record)
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, self.at.step)

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        task, scaler = self.accelerator.unwrap_model(self.task), self.accelerator.scaler
        state = {
            "processes": self.processes,
            "scaler": None if scaler is None else scaler.state_dict(),  # fp16
            **asdict(self.at),
        }
        optimizer = ckpt.optimizer_tensors(self.optimizer, task)
        ckpt.save_checkpoint(self.checkpoints, self.at.step, ckpt.Checkpoint(task.state_dict(), optimizer, state))
        ckpt.prune(self.checkpoints, self.config.train.keep_checkpoints, self.at.best_step)

    def _open_folder(self, lock: FileLock) -> ckpt.Checkpoint | None:
        """Begin the run's folder, or find where the run that it holds goes on."""
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise UserError(f"out: another process is training in {self.out}; choose another out=, or wait") from error
        config_file, split_file = self.out / "config.yaml", self.out / "split.json"
        record = json.dumps(self.data.record) + "\n"
        if config_file.exists():
            if self.config.resume == "never":
                raise UserError(f"out: {self.out} holds a run already; choose another out=, or resume=auto to go on")
            check_same_run(config_file.read_text(encoding="utf-8"), self.config.dump(), self.out)
            if split_file.exists() and split_file.read_text(encoding="utf-8") != record:
                raise UserError(f"out: the data has changed since {split_file} was written; choose another out=")
        ckpt.write_text(split_file, record)
        ckpt.write_text(config_file, self.config.dump())
        saved = ckpt.load_newest(self.checkpoints)
        if saved is not None and saved.state["processes"] != self.processes:
            raise UserError(
                f"out: the run in {self.out} had {saved.state['processes']} process(es), now {self.processes}, and its "
                "batch would change; start as many again, or choose another out="
            )
        step = 0 if saved is None else saved.state["step"]
        ckpt.keep_records(self.out / "metrics.jsonl", step if saved else -1)
        _append(self.out / "metrics.jsonl", {"kind": "environment", "step": step, **self._environment()})
        return saved

    def _resume(self, saved: ckpt.Checkpoint | None) -> None:
        if saved is None:
            return
        task, state = self.accelerator.unwrap_model(self.task), dict(saved.state)
        task.load_state_dict(saved.weights)
        ckpt.restore_optimizer(self.optimizer, task, saved.optimizer)
        del state["processes"]
        scaler = state.pop("scaler")
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        self.at = Place(**state)
        console.print(f"{self.out}: going on from step {self.at.step}", soft_wrap=True)

    def _take_best(self) -> None:
        best = self.at.best_step
        assert best is not None  # the last step is always validated

        def load() -> dict[str, Tensor]:
            try:
                return ckpt.load_checkpoint(self.checkpoints, best).weights
            except ckpt.DamagedError as error:
                raise UserError(
                    f"out: {self.out} has a damaged best checkpoint, step {best} ({error}); train again in another out="
                ) from error

        self.accelerator.unwrap_model(self.task).load_state_dict(on_first(load))

    def _environment(self) -> dict[str, Any]:
        train = self.config.train
        return {
            **environment(self.device),
            "processes": self.processes,
            "global_batch": self.batch,
            "precision": train.precision,
            "compile": train.compile,
        }


def train(config: Config, data: RunData | None = None) -> Score:
    """Train the run that `config` describes; returns the score on its test recordings.

    Where several processes train together, each calls `distributed.leave` after its last run.
    """
    for key, asked in {"patience": config.train.patience is not None, "select": config.train.select == "best"}.items():
        if asked and config.data.events.validation_per_class == 0:
            raise UserError(f"train.{key}: needs validation recordings; set data.events.validation_per_class above 0")
    build_model(config, 1)  # an impossible model is an error before minutes of loading
    return Trainer(config, data or prepare(config)).run()


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


def check_same_run(old: str, new: str, out: Path) -> None:
    """A run goes on under the settings that it began with; `resume` itself may differ."""
    changed = [
        (before, after)
        for before, after in zip(old.splitlines(), new.splitlines(), strict=False)
        if before != after and not before.startswith("resume:")
    ]
    if changed:
        before, after = (text.strip() for text in changed[0])
        raise UserError(f"out: {out} holds a run with other settings ({before!r}, now {after!r}); choose another out=")


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
