"""The training loop: optimiser steps, evaluation, metrics, checkpoints; resumes exactly where it stopped.

Everything random in optimiser step k comes from a generator seeded by (seed, k), so weights, optimiser
and step are all the state there is.
"""

import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import TextColumn
from torch.utils.tensorboard import SummaryWriter

import tmkt
from tmkt_kernels import _dispatch

from . import checkpoint as ckpt
from .config import Config
from .data import EventFrames, RunData, prepare, sample_pairs
from .errors import UserError
from .evaluation import Score, build_model, evaluate
from .progress import bar, console
from .transfer import TransferTask, build_streams, phases


def step_seed(seed: int, step: int) -> int:
    """A seed for one optimiser step; SeedSequence keeps neighbouring (seed, step) unrelated."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


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


class Trainer:
    """One run: its task, optimiser and files. `run()` trains to the end and scores the test recordings once."""

    def __init__(self, config: Config, data: RunData) -> None:
        self.config, self.data = config, data
        self.out = Path(config.out)
        precision = {"fp32": "no"}.get(config.train.precision, config.train.precision)
        try:
            self.accelerator = Accelerator(mixed_precision=precision, cpu=config.train.device == "cpu")
        except ValueError as error:
            raise UserError(f"train.precision: {config.train.precision} cannot be used here ({error})") from error
        self.device = self.accelerator.device
        self.model = build_model(config, len(data.classes))
        task = TransferTask(self.model, config.transfer, theta=config.model.neuron.v_threshold)
        optimizer = torch.optim.AdamW(task.parameters(), lr=config.train.lr, weight_decay=config.train.weight_decay)
        self.task, self.optimizer = self.accelerator.prepare(task, optimizer)
        data.train.to(self.device)
        self.phases = phases(config.transfer, config.train.steps)
        padding = config.data.crop_padding
        self.padding = config.data.size[0] // 12 if padding is None else padding
        self.step, self.seconds = 0, 0.0

    def run(self) -> Score:
        """Train from the last checkpoint (or the start) to the end, then evaluate on the test recordings."""
        self._open_folder()
        writer = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step + 1)
        began = time.monotonic() - self.seconds
        train = self.config.train
        self.task.train()
        name = self.config.transfer.method
        with bar(TextColumn("{task.fields[note]}")) as progress:
            task_id = progress.add_task(name, total=train.steps, completed=self.step, note="")
            while self.step < train.steps:
                result = self._train_step()
                self.step += 1
                self.seconds = time.monotonic() - began
                last = self.step == train.steps
                if self.step % train.log_every == 0 or last:
                    self._log_train(writer, result)
                if len(self.data.validation) and (self.step % train.eval_every == 0 or last):
                    score = self._log_score(writer, "validation", self.data.validation)
                    progress.update(task_id, note=f"validation {score.accuracy:.3f}")
                    seen = f"step {self.step}/{train.steps}, {self.seconds:.0f} s"
                    console.print(f"{name}: {seen}: validation accuracy {score.accuracy:.3f}", highlight=False)
                # The evaluation above is part of the step: resuming goes on after it.
                self.seconds = time.monotonic() - began
                if self.step % train.checkpoint_every == 0 or last:
                    self._save()
                progress.update(task_id, completed=self.step)
        score = self._log_score(writer, "test", self.data.test)
        writer.close()
        ckpt.save_weights(self.out / "model.safetensors", self.model.state_dict())
        return score

    def _train_step(self) -> dict[str, Any]:
        config, seed = self.config, step_seed(self.config.seed, self.step)
        torch.manual_seed(seed)  # for layers that draw from the default generator
        generator = torch.Generator().manual_seed(seed)
        flip, rotation = config.data.flip, config.data.rotation
        pairs = sample_pairs(self.data.train, config.train.batch, self.padding, generator, flip=flip, rotation=rotation)
        streams = build_streams(
            config.transfer,
            self.data.train,
            pairs,
            progress=self.step / config.train.steps,
            event_scale=config.data.events.scale,
            crop_padding=self.padding,
            generator=generator,
        )
        lr = learning_rate(self.step, config.train.lr, config.train.warmup, self.phases)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        result: dict[str, Any] = self.task(*streams)
        self.accelerator.backward(result["loss"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        result["accuracy"] = (result["logits"].mean(0).argmax(1) == streams.label).float().mean()
        return {**result, "lr": lr}

    def _log_train(self, writer: SummaryWriter, result: dict[str, Any]) -> None:
        values = {name: float(value) for name, value in result["parts"].items()}
        values |= {"loss": float(result["loss"].detach()), "accuracy": float(result["accuracy"]), "lr": result["lr"]}
        if not math.isfinite(values["loss"]):
            raise UserError(
                f"training: the loss is {values['loss']} at step {self.step}; lower train.lr, or use precision fp32"
            )
        self._record(writer, "train", values)

    def _log_score(self, writer: SummaryWriter, part: str, events: EventFrames) -> Score:
        with self.accelerator.autocast():
            score = evaluate(self.model, events, self.config.data.events.scale, self.device)
        values = {"accuracy": score.accuracy, "correct": score.correct, "total": score.total, "loss": score.loss}
        self._record(writer, part, values)
        return score

    def _record(self, writer: SummaryWriter, kind: str, values: dict[str, Any]) -> None:
        record = {"kind": kind, "step": self.step, "seconds": round(self.seconds, 3), **values}
        _append(self.out / "metrics.jsonl", record)
        for name, value in values.items():
            writer.add_scalar(f"{kind}/{name}", value, self.step)

    def _save(self) -> None:
        state = {"step": self.step, "seconds": self.seconds, "optimizer": self.optimizer.state_dict()}
        if self.accelerator.scaler is not None:  # fp16
            state["scaler"] = self.accelerator.scaler.state_dict()
        weights = self.accelerator.unwrap_model(self.task).state_dict()
        ckpt.save_checkpoint(self.out / "checkpoints", self.step, weights, state, self.config.train.keep_checkpoints)

    def _open_folder(self) -> None:
        """Begin the run's folder, or go on with the run that it holds."""
        config_file, split_file = self.out / "config.yaml", self.out / "split.json"
        record = json.dumps(self.data.record) + "\n"
        if config_file.exists():
            if self.config.resume == "never":
                raise UserError(f"out: {self.out} holds a run already; choose another out=, or resume=auto to go on")
            _check_same_run(config_file.read_text(encoding="utf-8"), self.config.dump(), self.out)
            if split_file.exists() and split_file.read_text(encoding="utf-8") != record:
                raise UserError(f"out: the data has changed since {split_file} was written; choose another out=")
        self.out.mkdir(parents=True, exist_ok=True)
        ckpt.write_text(split_file, record)
        ckpt.write_text(config_file, self.config.dump())
        saved = ckpt.checkpoints(self.out / "checkpoints")
        if saved:
            weights, state = ckpt.load_checkpoint(saved[-1])
            self.accelerator.unwrap_model(self.task).load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.step, self.seconds = state["step"], state["seconds"]
            console.print(f"{self.out}: going on from step {self.step}", soft_wrap=True)
        ckpt.keep_records(self.out / "metrics.jsonl", self.step if saved else -1)
        _append(self.out / "metrics.jsonl", {"kind": "environment", "step": self.step, **environment(self.device)})


def train(config: Config, data: RunData | None = None) -> Score:
    """Train the run that `config` describes; returns the score on its test recordings."""
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


def _check_same_run(old: str, new: str, out: Path) -> None:
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
