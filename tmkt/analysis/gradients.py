"""Claim 2 of TMKT: time-step mixup has a lower gradient variance than whole-sample replacement.

Both mix at the same mean share r of event steps, on the same pairs of image and recording, with the same loss and
weights, and differ only in the positions of the event steps. The trace of the gradient's covariance is estimated from
pairs of gradients, E|g - g'|^2 / 2. This needs the memory of two gradients, and draws give independent estimates.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..config import TransferConfig
from ..data import PairBatch, sample_pairs
from ..method.transfer import TransferTask, build_streams
from ..progress import track
from .finished_run import FinishedRun

RATIOS = (0.2, 0.5, 0.8)
MIXINGS = {"time_step": "time-step mixup", "sample": "whole samples"}
_FIRST_GENERATOR = 10  # samples use those below, see finished_run.py and features.py
SOURCES = {"all": "batch and mixing drawn anew", "mixing": "mixing alone drawn anew"}


class Ratio(NamedTuple):
    """Trace for time-step mixup over that for whole samples, with its 95 % bootstrap interval over draws."""

    relative: float
    low: float
    high: float


@dataclass(frozen=True)
class GradientTrace:
    """Trace of the gradient's covariance at a mean share `ratio` of event steps, for one mixing and source of chance.

    signal: squared norm of the mean gradient (unbiased, so below 0 where noise hides it), for source "all".
    against_sample: for mixing "time_step".
    """

    ratio: float
    mixing: str
    source: str
    trace: float
    signal: float | None = None
    against_sample: Ratio | None = None

    def record(self) -> dict[str, Any]:
        """Return plain values, as in diagnose.json."""
        plain: dict[str, Any] = {"ratio": self.ratio, "mixing": self.mixing, "source": self.source, "trace": self.trace}
        if self.signal is not None:
            plain["signal"] = self.signal
        return {**plain, **self.against_sample._asdict()} if self.against_sample else plain


def gradient_variance(run: FinishedRun, draws: int, ratios: Sequence[float] = RATIOS) -> list[GradientTrace]:
    """Estimate the trace of the gradient's covariance at the run's weights, per ratio, mixing and source of chance.

    The loss is CE_m + CE_e + DA of the run's settings. MAG and MRP are left out, because they depend on switch steps
    and so cannot be the same for both. Batch norms use their batch, as in training; there is no augmentation.
    """
    measured: dict[tuple[float, str], np.ndarray] = {}
    for ratio, mixing, draw in track([(r, m, k) for r in ratios for m in MIXINGS for k in range(draws)], "gradients"):
        row = _one_draw(run, ratio, mixing, draw)
        measured.setdefault((ratio, mixing), np.empty((draws, 3)))[draw] = row
    traces = []
    for ratio in ratios:
        for column, source in enumerate(SOURCES):
            mixup, sample = (measured[ratio, mixing][:, column] for mixing in MIXINGS)
            for mixing, values in zip(MIXINGS, (mixup, sample), strict=True):
                signal = float(measured[ratio, mixing][:, 2].mean()) if source == "all" else None
                against = _ratio(mixup, sample) if mixing == "time_step" else None
                traces.append(GradientTrace(ratio, mixing, source, float(values.mean()), signal, against))
    return traces


def _one_draw(run: FinishedRun, ratio: float, mixing: str, draw: int) -> tuple[float, float, float]:
    """Estimate the trace with everything drawn anew, that with only the mixing anew, and the mean's squared norm."""
    config, train = run.config, run.data.train
    settings = {"method": "tmkt", "mixing": mixing, "ratio": ratio, "schedule": "constant", "ratio_end": None}
    settings |= {"mag_weight": 0.0, "mag_on_events": False, "mrp_weight": 0.0, "da_learnable": False}
    plain = config.replace(**{f"transfer__{key}": value for key, value in settings.items()}).transfer
    # Both mixings use the same random numbers, so that their estimates of a draw form a pair.
    first, second, *mixings = (run.generator(_FIRST_GENERATOR + 5 * draw + i) for i in range(5))
    batch = sample_pairs(train, config.train.batch, first)
    g, other_mixing = (_gradient(run, plain, batch, generator) for generator in mixings[:2])
    other_batch = _gradient(run, plain, sample_pairs(train, config.train.batch, second), mixings[2])
    return (
        float((g - other_batch).square().sum() / 2),
        float((g - other_mixing).square().sum() / 2),
        float(g @ other_batch),
    )


def _gradient(run: FinishedRun, transfer: TransferConfig, pairs: PairBatch, generator: torch.Generator) -> Tensor:
    """Return the loss's gradient in the network's parameters, as one float64 vector."""
    config, data = run.config, run.data.train
    task = TransferTask(deepcopy(run.model), transfer, config.model.neuron.v_threshold, config.data.time_steps)
    task.to(run.device).train()
    streams = build_streams(
        transfer,
        data,
        pairs,
        progress=0.0,
        event_scale=config.data.events.scale,
        generator=generator,
    )
    task(*streams)["loss"].backward()
    return torch.cat([p.grad.double().flatten() for p in task.model.parameters() if p.grad is not None])


def _ratio(mixup: np.ndarray, sample: np.ndarray, replicates: int = 10_000) -> Ratio:
    """Return the mean of `mixup` over the mean of `sample`, resampled in pairs."""
    rows = np.random.default_rng(0).integers(len(mixup), size=(replicates, len(mixup)))
    low, high = np.quantile(mixup[rows].mean(1) / sample[rows].mean(1), [0.025, 0.975])
    return Ratio(float(mixup.mean() / sample.mean()), float(low), float(high))


def draw_gradient_variance(traces: Sequence[GradientTrace]) -> Figure:
    """Draw the trace against the ratio for both mixings, and time-step mixup's share of whole-sample replacement's."""
    figure = Figure(figsize=(10, 3.2))
    *axes, last = figure.subplots(1, 3)
    for axis, (source, title) in zip(axes, SOURCES.items(), strict=True):
        for mixing, name in MIXINGS.items():
            points = [trace for trace in traces if (trace.source, trace.mixing) == (source, mixing)]
            axis.plot([p.ratio for p in points], [p.trace for p in points], marker="o", ms=4, label=name)
        axis.set(title=title, ylabel="trace of the gradient's covariance", ylim=(0, None))
        bars = [(t.ratio, t.against_sample) for t in traces if t.source == source and t.against_sample]
        y = np.array([against.relative for _, against in bars])
        spread = [y - [against.low for _, against in bars], [against.high for _, against in bars] - y]
        x = [ratio + (0.005 if source == "mixing" else -0.005) for ratio, _ in bars]
        last.errorbar(x, y, spread, marker="o", ms=4, capsize=3, label=title)
    last.axhline(1, color="black", lw=0.8)
    last.set(title="time-step mixup / whole samples", ylim=(0, None))
    for axis in (*axes, last):
        axis.set_xlabel("mean share of event steps r")
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure
