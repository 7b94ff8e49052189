"""The transfer methods: the sequences and the loss of a training step (arXiv 2511.12150)."""

import math
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tmkt_kernels import time_step_mixup

from ..config import TWO_STREAMS, TransferConfig
from ..data.pairs import PairBatch, PairedData
from ..distributed import gather_batch
from ..mixup import event_step_mask, sample_switch_steps
from ..models import SpikingClassifier
from ..models.modes import domain_statistics, frozen_running_statistics
from . import losses
from .simulated import simulated_part
from .teacher import Targets

RATIOS = 1000  # steps between the bounds of a random r, so that p comes from a look-up


class Streams(NamedTuple):
    """Inputs of the network in one step, sequences [T, B, 2, H, W].

    The event head reads `main`. `mixed` (None for one-stream methods) begins with static steps and shows events from
    `switch_step` [B] on. `label`: int64 [B], or where the run mixes labels shares of the classes, float32 [B, K].
    `targets`: the teacher's logits and features for the B images, if there is one. `is_event`: the share of event cells
    in each step of `mixed`, float32 [T, B]; None in a run that mixes no samples.
    """

    main: Tensor
    mixed: Tensor | None
    switch_step: Tensor | None
    label: Tensor
    targets: Targets | None = None
    is_event: Tensor | None = None

    @property
    def classes(self) -> Tensor:
        """The class of each sample, int64 [B]; of a mixed label the one with the largest share."""
        return self.label if self.label.dim() == 1 else self.label.argmax(1)


def mixup_ratio(config: TransferConfig, progress: float) -> float:
    """Return the mix ratio r at `progress` in [0, 1) of the training; for schedule random the mean over samples.

    For schedule loss, `progress` is 1 minus the loss of the mixed stream as a share of that of a guess.
    """
    end = config.ratio if config.ratio_end is None else config.ratio_end
    share = {
        "constant": 0.0,
        "linear": progress,
        "cosine": (1 - math.cos(math.pi * progress)) / 2,
        "power": progress**config.power,
        "random": 0.5,
        "loss": progress,
    }[config.schedule]
    return config.ratio + (end - config.ratio) * share


def draw_switch_steps(
    config: TransferConfig, batch: int, T: int, progress: float, generator: torch.Generator
) -> Tensor | None:
    """Draw switch steps int64 [batch] of the mixed stream, 0..T (T: static to the end); None for a method without one.

    tmkt switches anywhere (without TSM it takes whole samples, all events with probability r). Sliding training (arXiv
    2303.13077) and ckd take whole samples, all events with probability progress ** power; joint mixes nothing, nor does
    bridge, whose images are simulated recordings.
    """
    if config.method not in TWO_STREAMS:
        return None
    if config.method == "tmkt" and config.mixing == "time_step":
        return sample_switch_steps(batch, T, _ratios(config, batch, progress, generator), generator)
    own = {"tmkt": mixup_ratio(config, progress), "joint": 0.0, "bridge": 0.0}
    share = own.get(config.method, progress**config.power)
    replaced = torch.rand(batch, generator=generator, dtype=torch.float64) < share
    return torch.where(replaced, 0, T)


def _ratios(config: TransferConfig, batch: int, progress: float, generator: torch.Generator) -> float | list[float]:
    """Return r of this step, or for schedule random one per sample."""
    if config.schedule != "random" or config.ratio_end is None:
        return mixup_ratio(config, progress)
    low, high = config.ratio, config.ratio_end
    steps = torch.randint(RATIOS + 1, (batch,), generator=generator).tolist()
    return [low + (high - low) * (step / RATIOS) for step in steps]


def phases(config: TransferConfig, steps: int) -> list[int]:
    """Return the optimiser steps of each training phase; the learning rate's schedule restarts in each.

    finetune: first half static (with the odd step), second half events, both read by the event head. The
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
    generator: torch.Generator,
    targets: Targets | None = None,
    share: slice = slice(None),
) -> Streams:
    """Gather and mix the sequences of one step on the data's device, without repeating an image in memory.

    With `data.camera`, some steps show recordings that are simulated here, see `draw_spans`. Every pair is augmented,
    then mixed with its partner, if it has one, whose sequences are made likewise. `targets`: the teacher's for every
    static image of `data`, if there is one. `share`: the pairs to make sequences of. Random numbers are drawn for all
    pairs, so that the shares of a batch are consistent.
    """
    T, device = data.events.frames.shape[0], data.events.frames.device
    static = config.method == "static_only" or (config.method == "finetune" and progress < 0.5)
    main = torch.full_like(pairs.label, T if static else 0)
    mixed = draw_switch_steps(config, len(pairs.label), T, progress, generator)
    rows = pairs.rows(share)
    simulated = simulated_part(data, pairs, main, mixed, generator, rows)
    pairs, main, mixed = pairs.share(share), main[rows], None if mixed is None else mixed[rows]
    blend = None if pairs.mix is None else pairs.mix.blend(device)

    static_index, label = pairs.static_index.to(device), pairs.label.to(device)
    frames, event_index = data.events.frames, pairs.event_index.to(device)
    if simulated is not None and not len(data.events):  # each pair has its own
        frames, event_index, simulated = simulated.frames, torch.arange(len(pairs.label), device=device), None

    def sequence(stream: int, switch_step: Tensor) -> Tensor:
        x_seq = time_step_mixup(
            data.images,
            frames,
            switch_step.to(device),
            static_index=static_index,
            event_index=event_index,
            scale=(1 / 255, event_scale),
            dtype=torch.float32,
        )
        shows_recording = event_step_mask(switch_step, T).bool()
        if simulated is not None:
            x_seq = simulated.put_into(x_seq, stream, event_scale)
            shows_recording |= simulated.spans.mask(stream, T)
        x_seq = pairs.augment(x_seq, shows_recording)
        return x_seq if blend is None else blend.sequences(x_seq)

    label = label if blend is None else blend.labels(label, data.num_classes)
    if mixed is None:
        return Streams(sequence(0, main), None, None, label)
    batch_targets, switch_step, is_event = None if targets is None else targets.at(static_index), mixed.to(device), None
    if blend is not None:
        batch_targets = batch_targets and batch_targets.mixed(blend, config.teacher.temperature)
        is_event = blend.step_values(event_step_mask(switch_step, T))
        switch_step = switch_step[: blend.n]
    return Streams(sequence(0, main), sequence(1, mixed), switch_step, label, batch_targets, is_event)


class TransferTask(nn.Module):
    """The network, the modules that only training needs, and the method's loss.

    Total = CE_m + CE_e + da DA for every method of two streams; + mag MAG + mrp MRP for tmkt; + distillation with
    a teacher; + consistency with the averaged network. The others have one stream, whose CE is the total.

    average: the moving average of the network (mean teacher, arXiv 1703.01780), with `config.average` as its decay.
    """

    def __init__(self, model: SpikingClassifier, config: TransferConfig, theta: float, time_steps: int) -> None:
        super().__init__()
        self.model, self.config, self.theta = model, config, theta
        width = int(getattr(model.backbone, f"{'spike' if config.features == 'spikes' else 'membrane'}_features"))
        self.mag_head = nn.Linear(width, 1) if self._uses(config.mag_weight) else None
        self.mrp_head = nn.Linear(width, 1) if self._uses(config.mrp_weight) else None
        learnable = config.da_learnable and config.method in TWO_STREAMS
        self.da_coefficients = nn.Parameter(torch.zeros(time_steps)) if learnable else None
        self.average = deepcopy(model).requires_grad_(False) if config.average > 0 else None

    @property
    def scored(self) -> SpikingClassifier:
        """The network that is validated, tested and exported."""
        return self.model if self.average is None else self.average

    def train(self, mode: bool = True) -> "TransferTask":
        super().train(mode)
        if self.average is not None:
            self.average.eval()
        return self

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Move the averaged network towards the network after optimiser step `step` = 1, 2, ...

        Until the average has a past, its decay is smaller: (1 + step) / (10 + step).
        """
        if self.average is None:
            return
        decay = min(self.config.average, (1 + step) / (10 + step))
        for mean, value in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            mean.copy_(torch.lerp(value, mean, decay) if value.is_floating_point() else value)

    def _uses(self, weight: float) -> bool:
        return self.config.method == "tmkt" and weight > 0

    def forward(
        self,
        main: Tensor,
        mixed: Tensor | None,
        switch_step: Tensor | None,
        label: Tensor,
        targets: Targets | None = None,
        is_event: Tensor | None = None,
    ) -> dict[str, Any]:
        """Fields of `Streams` -> loss (scalar), parts (detached scalars), logits [T, B, K] of the event head."""
        if mixed is None or switch_step is None:
            logits = self.model(main).logits
            loss = self._classification(logits, label)
            # Named after the head; static_only and finetune's first half show it static images.
            return {"loss": loss, "parts": {"ce_event": loss.detach()}, "logits": logits}
        is_event = event_step_mask(switch_step, main.shape[0]) if is_event is None else is_event
        (logits_e, features_e), (logits_m, features_m) = self._both(main, mixed, is_event)
        align = None if self.da_coefficients is None else torch.sigmoid(self.da_coefficients)
        terms = {
            "ce_event": (1.0, self._classification(logits_e, label, None if align is None else 1 - align)),
            "ce_mixed": (1.0, self._classification(logits_m, label)),
        }
        if self.config.da_weight > 0:
            everyone = gather_batch(features_m), gather_batch(features_e)
            terms["da"] = (self.config.da_weight, losses.domain_alignment(*everyone, align))
        if self.mag_head is not None:
            terms["mag"] = (self.config.mag_weight, self._guidance(features_m, features_e, is_event))
        if self.mrp_head is not None:
            predicted = self.mrp_head(features_m.mean(0)).squeeze(-1)
            mrp = losses.ratio_perception(predicted, is_event.mean(0), self.config.mrp_loss)
            terms["mrp"] = (self.config.mrp_weight, mrp)
        if self.config.distils:
            terms |= self._distillation(logits_m, features_m, targets)
        if self.average is not None and self.config.consistency_weight > 0:
            with torch.no_grad():
                answer = self.average(main).logits.float().mean(0)
            terms["consistency"] = (self.config.consistency_weight, losses.distillation(logits_m, answer, 1.0))
        loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
        return {"loss": loss, "parts": {n: term.detach() for n, (_, term) in terms.items()}, "logits": logits_e}

    def _classification(self, logits: Tensor, label: Tensor, step_weight: Tensor | None = None) -> Tensor:
        if self.config.classification == "tet":
            weight = self.config.tet_weight
            return losses.tet(logits, label, theta=self.theta, weight=weight, step_weight=step_weight)
        return losses.mean_cross_entropy(logits, label)

    def _guidance(self, features_m: Tensor, features_e: Tensor, is_event: Tensor) -> Tensor:
        assert self.mag_head is not None
        loss = losses.modality_guidance(self.mag_head(features_m).squeeze(-1), is_event)
        if self.config.mag_on_events:
            of_events = self.mag_head(features_e).squeeze(-1)
            loss = (loss + losses.modality_guidance(of_events, torch.ones_like(of_events))) / 2
        return loss

    def _distillation(
        self, logits: Tensor, features: Tensor, targets: Targets | None
    ) -> dict[str, tuple[float, Tensor]]:
        """Terms of the teacher on the mixed stream, which starts on the teacher's images (ckd slides to events)."""
        if targets is None:
            raise ValueError("targets: distillation needs the teacher's, see tmkt.method.teacher.teacher_targets")
        teacher = self.config.teacher
        terms = {"kd": (teacher.weight, losses.distillation(logits, targets.logits, teacher.temperature))}
        if teacher.feature_weight > 0:
            everyone = gather_batch(features.mean(0, keepdim=True)), gather_batch(targets.features[None])
            alignment = losses.domain_alignment(*everyone)
            terms["kd_features"] = (teacher.feature_weight, alignment)
        return terms

    def _both(
        self, main: Tensor, mixed: Tensor, is_event: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return (logits, features) of the event stream and of the mixed stream, by config.streams."""
        backbone = self.model.backbone
        if self.config.streams != "joint":
            spikes_e, v_e = backbone(main)
            domain = is_event.round()  # of a step with cells of both, that of most of them
            apart = domain_statistics(self.model, domain) if self.config.streams == "domains" else nullcontext()
            with frozen_running_statistics(self.model), apart:  # evaluation uses those of the event stream
                spikes_m, v_m = backbone(mixed)
        else:
            (spikes_e, spikes_m), (v_e, v_m) = (x.chunk(2, dim=1) for x in backbone(torch.cat([main, mixed], dim=1)))
        return self._read(spikes_e, v_e, "event"), self._read(spikes_m, v_m, "mixed")

    def _read(self, spikes: Tensor, v_seq: Tensor, stream: str) -> tuple[Tensor, Tensor]:
        return self.model.classify(spikes, stream), self.features(spikes, v_seq)

    def features(self, spikes: Tensor, v_seq: Tensor) -> Tensor:
        """Return the part of the backbone's output that DA, MAG and MRP use, by config.features: [T, B, D]."""
        return spikes if self.config.features == "spikes" else v_seq
