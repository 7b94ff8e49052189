"""Pictures of a run: mixed batch, learning curves, spike raster, accuracies. Drawn without a display."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from tmkt_kernels.nn import SPIKING_LAYERS

from .evaluation import Score
from .models import SpikingClassifier

matplotlib.use("Agg")
STATIC_COLOUR, EVENT_COLOUR = "#d95f02", "#1b6ca8"


def save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=130, bbox_inches="tight")
    return path


def mixed_batch(mixed: Tensor, switch_step: Tensor, titles: Sequence[str]) -> Figure:
    """One row a sample, frames in time order; static steps framed in orange, event steps in blue.

    mixed [T, B, 2, H, W], switch_step int64 [B]. On events are red, off events blue, on white.
    """
    T, batch = mixed.shape[:2]
    figure = Figure(figsize=(0.95 * T + 1.2, 1.0 * batch + 0.7))
    axes: Any = figure.subplots(batch, T, squeeze=False, gridspec_kw={"wspace": 0.16, "hspace": 0.12})
    for b, t in np.ndindex(batch, T):
        axis, switch = axes[b, t], int(switch_step[b])
        if t < switch:
            axis.imshow(1 - mixed[t, b, 0].numpy(), cmap="gray", vmin=0, vmax=1)
        else:
            axis.imshow(_event_image(mixed[t, b]))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color=STATIC_COLOUR if t < switch else EVENT_COLOUR, linewidth=2)
        if b == 0:
            axis.set_title(f"t = {t}", fontsize=8)
        if 0 < t == switch:  # in the gap before the first event frame: here the sample switches
            axis.add_line(
                Line2D([-0.08] * 2, [-0.06, 1.06], color="black", lw=4, transform=axis.transAxes, clip_on=False)
            )
    for b, title in enumerate(titles):
        axes[b, 0].set_ylabel(title, fontsize=8, rotation=0, ha="right", va="center")
    title = "time-step mixup: image steps (orange frames), then event steps (blue frames); the bar marks the switch"
    figure.suptitle(title, fontsize=9, y=0.97)
    return figure


def _event_image(frame: Tensor) -> np.ndarray:
    """Counts [2, H, W] -> RGB [H, W, 3]: channel 1 (on) red, channel 0 (off) blue, brighter with more events."""
    counts = frame.numpy().astype(np.float32)
    off, on = counts / max(1.0, float(np.quantile(counts, 0.995)))
    rgb = np.stack([1 - off, 1 - np.maximum(on, off), 1 - on], axis=-1)
    return np.clip(rgb, 0, 1)


def learning_curves(runs: Mapping[str, Path]) -> Figure:
    """Training loss of the event stream and validation accuracy against optimiser steps; runs: name -> folder."""
    figure = Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2)
    for name, folder in runs.items():
        records = read_metrics(folder)
        train = [r for r in records if r["kind"] == "train"]
        validation = [r for r in records if r["kind"] == "validation"]
        left.plot([r["step"] for r in train], [r["ce_event"] for r in train], label=name)
        right.plot([r["step"] for r in validation], [r["accuracy"] for r in validation], marker="o", ms=3, label=name)
    left.set(xlabel="optimiser steps", ylabel="classification loss, event stream", ylim=(0, None))
    right.set(xlabel="optimiser steps", ylabel="accuracy on validation recordings", ylim=(0, 1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    return figure


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@torch.no_grad()
def spike_raster(model: SpikingClassifier, x_seq: Tensor, label: str, neurons: int = 120) -> Figure:
    """Spikes of every spiking layer for one recording x_seq [T, 1, 2, H, W], neurons picked evenly of the firing."""
    layers: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            layers[name] = output[0] if isinstance(output, tuple) else output

        return hook

    spiking = [module for module in model.modules() if isinstance(module, SPIKING_LAYERS)]
    handles = [module.register_forward_hook(keep(f"layer {i + 1}")) for i, module in enumerate(spiking)]
    training = model.training
    model.eval()
    model(x_seq)
    model.train(training)
    for handle in handles:
        handle.remove()
    figure = Figure(figsize=(9, 1.0 + 1.5 * len(layers)))
    for axis, (name, spikes) in zip(figure.subplots(len(layers), 1, squeeze=False)[:, 0], layers.items(), strict=True):
        flat = spikes[:, 0].flatten(1).cpu()
        fired = flat.any(0).nonzero()[:, 0]
        active = fired[torch.linspace(0, max(0, len(fired) - 1), min(neurons, len(fired))).long()]
        time, neuron = torch.nonzero(flat[:, active], as_tuple=True)
        axis.scatter(time, neuron, s=4, marker="s", color="black", linewidths=0)
        axis.set(xlim=(-0.5, len(flat) - 0.5), ylim=(-1, len(active)), ylabel="neuron", xticks=range(len(flat)))
        axis.set_title(f"{name}: {flat.mean():.1%} of {flat.shape[1]} neurons fire per step", fontsize=9)
    axis.set_xlabel("time step")
    title = f"spikes for one test recording of class {label}: {neurons} a layer of the neurons that fire"
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    return figure


def accuracy_bars(scores: Mapping[str, Score]) -> Figure:
    """Test accuracy of each method with its 95 % Wilson interval (from the number of recordings alone)."""
    figure = Figure(figsize=(1.5 + 1.2 * len(scores), 3.4))
    axis = figure.subplots()
    for i, score in enumerate(scores.values()):
        low, high = wilson(score)
        axis.bar(i, score.accuracy, width=0.6, color=EVENT_COLOUR)
        axis.errorbar(i, score.accuracy, [[score.accuracy - low], [high - score.accuracy]], color="black", capsize=4)
        axis.text(i, 0.02, f"{score.accuracy:.3f}", ha="center", color="white", fontsize=9)
    axis.set_xticks(range(len(scores)), list(scores))
    axis.set(ylabel="accuracy on test recordings", ylim=(0, 1))
    axis.grid(axis="y", alpha=0.3)
    return figure


def wilson(score: Score, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of an accuracy, for the chance in which recordings were tested (Wilson 1927)."""
    n, p = score.total, score.accuracy
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return centre - half, centre + half
