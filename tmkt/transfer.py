"""The transfer methods: which sequences a step sees, and what its loss is (arXiv 2511.12150)."""

from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tmkt_kernels import time_step_mixup

from . import losses
from .config import TransferConfig
from .data.augment import augment
from .data.pairs import PairBatch, PairedData
from .mixup import event_step_mask, sample_switch_steps
from .models import SpikingClassifier


class Streams(NamedTuple):
    """What the network sees in one step, sequences [T, B, 2, H, W].

    `main` is the stream that the event head reads; `mixed` (None for one-stream methods) begins with
    static steps and shows events from `switch_step` [B] on.
    """

    main: Tensor
    mixed: Tensor | None
    switch_step: Tensor | None
    label: Tensor


def mixup_ratio(config: TransferConfig, progress: float) -> float:
    """The mix ratio r at `progress` in [0, 1) of the training: constant, or linear to ratio_end."""
    end = config.ratio if config.ratio_end is None else config.ratio_end
    return config.ratio + (end - config.ratio) * progress


def draw_switch_steps(
    config: TransferConfig, batch: int, T: int, progress: float, generator: torch.Generator
) -> Tensor | None:
    """Switch steps int64 [batch] of the mixed stream, or None for a method without one.

    tmkt switches anywhere; sliding training (arXiv 2303.13077) takes whole samples, all events with
    probability progress ** power, else all static.
    """
    if config.method == "tmkt":
        return sample_switch_steps(batch, T, mixup_ratio(config, progress), generator)
    if config.method == "sliding":
        replaced = torch.rand(batch, generator=generator, dtype=torch.float64) < progress**config.power
        return torch.where(replaced, 0, T)
    return None


def phases(config: TransferConfig, steps: int) -> list[int]:
    """Optimiser steps of each training phase; the learning rate's schedule starts anew in each.

    finetune: first half static (the odd step too), second half events, both read by the event head. The
    others have one phase.
    """
    return [steps - steps // 2, steps // 2] if config.method == "finetune" and steps > 1 else [steps]


def build_streams(
    config: TransferConfig,
    data: PairedData,
    pairs: PairBatch,
    *,
    progress: float,
    event_scale: float,
    crop_padding: int,
    generator: torch.Generator,
) -> Streams:
    """Gather and mix the sequences of one step on the data's device, without repeating an image in memory."""
    frames = data.events.frames
    T, batch, device = frames.shape[0], len(pairs.label), frames.device

    def sequence(switch_step: Tensor) -> Tensor:
        x_seq = time_step_mixup(
            data.images,
            frames,
            switch_step.to(device),
            static_index=pairs.static_index.to(device),
            event_index=pairs.event_index.to(device),
            scale=(1 / 255, event_scale),
            dtype=torch.float32,
        )
        return augment(x_seq, pairs, crop_padding)

    label = pairs.label.to(device)
    static_phase = config.method == "finetune" and progress < 0.5
    main = sequence(torch.full((batch,), T if static_phase else 0))
    switch_step = draw_switch_steps(config, batch, T, progress, generator)
    if switch_step is None:
        return Streams(main, None, None, label)
    return Streams(main, sequence(switch_step), switch_step.to(device), label)


class TransferTask(nn.Module):
    """The network together with the heads that only training needs, and the method's loss.

    Total = CE_m + CE_e + da DA + mag MAG + mrp MRP for tmkt; without MAG and MRP for sliding; CE of
    the one stream for finetune and events_only.
    """

    def __init__(self, model: SpikingClassifier, config: TransferConfig, theta: float) -> None:
        super().__init__()
        self.model, self.config, self.theta = model, config, theta
        self.mag_head = nn.Linear(model.feature_dim, 1) if self._uses(config.mag_weight) else None
        self.mrp_head = nn.Linear(model.feature_dim, 1) if self._uses(config.mrp_weight) else None

    def _uses(self, weight: float) -> bool:
        return self.config.method == "tmkt" and weight > 0

    def forward(self, main: Tensor, mixed: Tensor | None, switch_step: Tensor | None, label: Tensor) -> dict[str, Any]:
        """Fields of `Streams` -> loss (scalar), parts (detached scalars), logits [T, B, K] of the event head."""
        if mixed is None or switch_step is None:
            logits = self.model(main).logits
            loss = self._classification(logits, label)
            return {"loss": loss, "parts": {"ce_event": loss.detach()}, "logits": logits}
        (logits_e, features_e), (logits_m, features_m) = self._both(main, mixed)
        parts = {
            "ce_event": self._classification(logits_e, label),
            "ce_mixed": self._classification(logits_m, label),
        }
        weights = {"ce_event": 1.0, "ce_mixed": 1.0, "da": self.config.da_weight}
        if self.config.da_weight > 0:
            parts["da"] = losses.domain_alignment(features_m, features_e)
        is_event = event_step_mask(switch_step, main.shape[0])
        if self.mag_head is not None:
            parts["mag"], weights["mag"] = self._guidance(features_m, features_e, is_event), self.config.mag_weight
        if self.mrp_head is not None:
            predicted = self.mrp_head(features_m.mean(0)).squeeze(-1)
            parts["mrp"] = losses.ratio_perception(predicted, is_event.mean(0), self.config.mrp_loss)
            weights["mrp"] = self.config.mrp_weight
        loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss, "parts": {n: part.detach() for n, part in parts.items()}, "logits": logits_e}

    def _classification(self, logits: Tensor, label: Tensor) -> Tensor:
        if self.config.classification == "tet":
            return losses.tet(logits, label, theta=self.theta, weight=self.config.tet_weight)
        return losses.mean_cross_entropy(logits, label)

    def _guidance(self, features_m: Tensor, features_e: Tensor, is_event: Tensor) -> Tensor:
        assert self.mag_head is not None
        loss = losses.modality_guidance(self.mag_head(features_m).squeeze(-1), is_event)
        if self.config.mag_on_events:
            of_events = self.mag_head(features_e).squeeze(-1)
            loss = (loss + losses.modality_guidance(of_events, torch.ones_like(of_events))) / 2
        return loss

    def _both(self, main: Tensor, mixed: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(logits, features) of the event stream and of the mixed stream, by config.streams."""
        if self.config.streams == "separate":
            event = self.model(main, "event")
            with frozen_running_statistics(self.model):
                return event, self.model(mixed, "mixed")
        spikes, features = self.model.backbone(torch.cat([main, mixed], dim=1))
        (spikes_e, spikes_m), (features_e, features_m) = spikes.chunk(2, dim=1), features.chunk(2, dim=1)
        logits_e, logits_m = self.model.classify(spikes_e, "event"), self.model.classify(spikes_m, "mixed")
        return (logits_e, features_e), (logits_m, features_m)


@contextmanager
def frozen_running_statistics(model: nn.Module) -> Any:
    """Batch norms normalise by their batch but keep their running statistics: evaluation uses the event stream's."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                stack.callback(setattr, module, "momentum", module.momentum)
                module.momentum = 0.0
        yield
