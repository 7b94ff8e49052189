"""Pictures of a run: mixed batch, learning curves, spike raster, accuracies. Drawn without a display."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from ..atomic_files import write
from ..mixup import event_step_mask
from ..models import SpikingClassifier
from ..models.activity import layer_titles, recorded_spikes
from ..models.modes import evaluation_mode
from ..training.evaluation import Score
from .results import Mean
from .statistics import wilson

matplotlib.use("Agg")
STATIC_COLOUR, EVENT_COLOUR, SIMULATED_COLOUR, BOTH_COLOUR = "#d95f02", "#1b6ca8", "#1b9e77", "#7570b3"


def save(figure: Figure, path: Path) -> Path:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=130, bbox_inches="tight")
    write(path, content.getvalue())
    return path


def mixed_batch(mixed: Tensor, switch_step: Tensor, classes: Sequence[str], is_event: Tensor | None = None) -> Figure:
    """Draw one row per sample, with its class and its switch step; see `sequences`."""
    T = len(mixed)
    names = {0: "events only", T: "image only"}
    labels = [
        f"class {name}\n{names.get(switch, f'events from step {switch}')}"
        for name, switch in zip(classes, switch_step.tolist(), strict=True)
    ]
    title = "What the network sees: an image, then the event frames of a recording of its class\n"
    title += "(samples chosen to show different switch steps)"
    return sequences(mixed, switch_step, labels, title, is_event=is_event)


def simulated_beside_recordings(simulated: Tensor, recordings: Tensor, classes: Sequence[str]) -> Figure:
    """Draw a simulated recording [T, B, 2, H, W] above a recording of its class, for each pair; see `sequences`."""
    T, batch = simulated.shape[:2]
    rows = torch.stack([simulated, recordings], 2).flatten(1, 2)
    labels = [f"class {name}\n{kind}" for name in classes for kind in ("simulated", "recording")]
    switch_step = torch.tensor([T, 0]).repeat(batch)
    is_simulated = (switch_step == T).expand(T, -1)
    title = "What the network sees with a bridge: simulated recordings of images, and recordings of other images"
    return sequences(rows, switch_step, labels, title, is_simulated)


def sequences(
    mixed: Tensor,
    switch_step: Tensor,
    labels: Sequence[str],
    title: str,
    simulated: Tensor | None = None,
    is_event: Tensor | None = None,
) -> Figure:
    """Draw one row per sequence, frames in time order; image steps framed in orange, event steps in blue.

    mixed [T, B, 2, H, W], switch_step int64 [B]. On events are red, off events blue, on white. simulated: bool [T, B],
    the steps of a simulated recording, framed in green; None: those before the switch whose two channels differ.
    is_event: the share of event cells of each step [T, B], where samples are mixed with others; None: by switch_step.
    """
    T, batch = mixed.shape[:2]
    height = batch + 1.25  # inches: the rows, the legend and the title above them
    figure = Figure(figsize=(0.95 * T + 1.6, height))
    place = {"left": 1.5 / (0.95 * T + 1.6), "right": 0.995, "bottom": 0.05 / height, "top": 1 - 1.2 / height}
    axes: Any = figure.subplots(batch, T, squeeze=False, gridspec_kw={"wspace": 0.16, "hspace": 0.12, **place})
    is_event = event_step_mask(switch_step, T) if is_event is None else is_event
    before, both = is_event == 0, (is_event > 0) & (is_event < 1)
    if simulated is None:
        simulated = before & (mixed[:, :, 0] != mixed[:, :, 1]).flatten(2).any(2)
    switches = False
    for b, t in np.ndindex(batch, T):
        axis, image = axes[b, t], before[t, b] and not simulated[t, b]
        if image:
            axis.imshow(1 - mixed[t, b, 0].numpy(), cmap="gray", vmin=0, vmax=1)
        else:
            axis.imshow(_event_image(mixed[t, b]))
        axis.set(xticks=[], yticks=[])
        colour = STATIC_COLOUR if image else SIMULATED_COLOUR if simulated[t, b] else EVENT_COLOUR
        colour = BOTH_COLOUR if both[t, b] else colour
        axis.spines[:].set(color=colour, linewidth=2)
        if b == 0:
            axis.set_title(f"step {t}", fontsize=10)
        # A sample that is mixed with another one may show no image before its switch step.
        if 0 < t == switch_step[b] and before[t - 1, b] and not before[t, b]:  # mark the gap before the first events
            switches = True
            axis.add_line(
                Line2D([-0.08] * 2, [-0.06, 1.06], color="black", lw=4, transform=axis.transAxes, clip_on=False)
            )
    for b, label in enumerate(labels):
        axes[b, 0].set_ylabel(label, fontsize=10, rotation=0, ha="right", va="center")
    frame: Any = {"facecolor": "white", "linewidth": 2}
    handles = [
        *([Patch(**frame, edgecolor=STATIC_COLOUR, label="image step")] if (before & ~simulated).any() else []),
        *([Patch(**frame, edgecolor=SIMULATED_COLOUR, label="simulated step")] if simulated.any() else []),
        Patch(**frame, edgecolor=EVENT_COLOUR, label="event step"),
        *([Patch(**frame, edgecolor=BOTH_COLOUR, label="image and events")] if both.any() else []),
        *([Line2D([], [], color="black", lw=4, label="switch step")] if switches else []),
        Patch(facecolor="red", label="on event (pixel brighter)"),
        Patch(facecolor="blue", label="off event (pixel darker)"),
        Patch(facecolor="black", label="both in one step"),
    ]
    figure.suptitle(title, fontsize=12, y=1 - 0.08 / height)
    above: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, 1 - 0.55 / height), "ncols": len(handles)}
    figure.legend(handles=handles, frameon=False, fontsize=9, handlelength=1.2, columnspacing=1.4, **above)
    return figure


def _event_image(frame: Tensor) -> np.ndarray:
    """Counts [2, H, W] -> RGB [H, W, 3]: channel 1 (on) red, channel 0 (off) blue, brighter with more events."""
    counts = frame.numpy().astype(np.float32)
    off, on = counts / max(1.0, float(np.quantile(counts, 0.995)))
    rgb = np.stack([1 - off, 1 - np.maximum(on, off), 1 - on], axis=-1)
    return np.clip(rgb, 0, 1)


def learning_curves(metrics: Mapping[str, Sequence[Sequence[dict[str, Any]]]], title: str) -> Figure:
    """Draw the event stream's training loss and the validation accuracy against optimiser steps.

    metrics: name -> the metrics of one or more runs (seeds), drawn as their mean and range.
    """
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, runs in metrics.items():
        _curve(left, name, [_points(run, "train", "ce_event") for run in runs])
        _curve(right, name, [_points(run, "validation", "accuracy") for run in runs], marker="o", ms=4)
    left.set(xlabel="optimiser step", ylabel="cross-entropy of the event stream", xlim=(0, None), ylim=(0, None))
    left.set_title("loss on the training recordings", fontsize=10)
    right.set(xlabel="optimiser step", ylabel="accuracy", xlim=(0, None))
    right.set_title("accuracy on held-out validation recordings", fontsize=10)
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    right.legend(title="method", frameon=False, fontsize=9, title_fontsize=9, loc="best")
    figure.suptitle(title, fontsize=11)
    return figure


def _points(records: Sequence[dict[str, Any]], kind: str, key: str) -> list[tuple[int, float]]:
    return [(record["step"], record[key]) for record in records if record["kind"] == kind and key in record]


def _curve(axis: Any, name: str, series: Sequence[Sequence[tuple[int, float]]], **style: Any) -> None:
    """Draw the mean of several series of (step, value) at the steps that they share, and their range."""
    steps = sorted(set.intersection(*(set(dict(one)) for one in series)))
    values = np.array([[dict(one)[step] for step in steps] for one in series])
    (line,) = axis.plot(steps, values.mean(0), label=name, **style)
    if len(series) > 1:
        axis.fill_between(steps, values.min(0), values.max(0), color=line.get_color(), alpha=0.15, linewidth=0)


def spike_raster(
    model: SpikingClassifier, x_seq: Tensor, label: int, classes: Sequence[str], neurons: int = 120
) -> Figure:
    """Draw the spikes of every spiking layer for one recording x_seq [T, 1, 2, H, W] of class `label`, and the answer.

    Each layer shows at most `neurons` neurons that fire, evenly spread over it.
    """
    with evaluation_mode(model), recorded_spikes(model) as layers:
        answer = int(model(x_seq).logits.float().mean(0).argmax(1))
    titles = layer_titles(model)
    figure = Figure(figsize=(7, 0.9 + 1.7 * len(layers)), layout="constrained")
    axes = figure.subplots(len(layers), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (name, spikes) in zip(axes, layers.items(), strict=True):
        flat = spikes[:, 0].flatten(1).cpu()
        fired = flat.any(0).nonzero()[:, 0]
        rows = fired[torch.linspace(0, max(0, len(fired) - 1), min(neurons, len(fired))).long()]
        image = flat[:, rows].T.numpy() if len(rows) else np.zeros((1, len(flat)))
        axis.imshow(image, cmap="gray_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest", origin="lower")
        axis.set(ylabel="neuron", xticks=range(len(flat)), xticklabels=range(len(flat)))
        axis.set_xticks(np.arange(len(flat) - 1) + 0.5, minor=True)
        axis.grid(axis="x", which="minor", color="0.8", linewidth=0.6)
        axis.tick_params(which="minor", length=0)
        axis.set_title(titles[name], fontsize=10, loc="left")
        rate = f"{flat.mean():.1%} of {flat.shape[1]:,} neurons fire per step; {len(rows)} of those that fire are shown"
        axis.set_title(f"{rate}\nmodule {name}", fontsize=8, color="0.35", loc="right")
    axes[-1].set_xlabel("time step (one frame of the recording each)")
    verdict = "right" if answer == label else "wrong"
    figure.suptitle(
        f"Spikes for one test recording: class {classes[label]}, the network answers {classes[answer]} ({verdict})\n"
        "black: the neuron fires in that step",
        fontsize=11,
    )
    return figure


def accuracy_bars(scores: Mapping[str, Score], title: str, classes: int) -> Figure:
    """Draw each method's test accuracy with its 95 % Wilson interval (from the number of recordings alone)."""
    figure = Figure(figsize=(2.6 + 1.3 * len(scores), 4.2), layout="constrained")
    axis = figure.subplots()
    for i, score in enumerate(scores.values()):
        low, high = wilson(score.correct, score.total)
        axis.bar(i, score.accuracy, width=0.6, color=EVENT_COLOUR)
        axis.errorbar(i, score.accuracy, [[score.accuracy - low], [high - score.accuracy]], color="black", capsize=4)
        axis.text(i, high + 0.015, f"{score.accuracy:.3f}", ha="center", va="bottom", fontsize=11)
    axis.axhline(1 / classes, color="0.3", linestyle="--", linewidth=1)
    axis.text(len(scores) - 0.45, 1 / classes, f" chance\n {1 / classes:.3g}", va="center", fontsize=9)
    axis.set_xticks(range(len(scores)), list(scores), fontsize=11)
    axis.set(ylabel="accuracy on the test recordings", ylim=(0, 1.1), xlim=(-0.5, len(scores) - 0.5))
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    totals = sorted({score.total for score in scores.values()})
    figure.supxlabel(
        f"Intervals: 95 % Wilson over the {', '.join(map(str, totals))} test recordings. They do not contain\n"
        "how accuracy varies with the seed.",
        fontsize=8,
        color="0.3",
    )
    axis.set_title(title, fontsize=10)
    return figure


def accuracy_by_recordings(means: Sequence[Mean]) -> Figure:
    """Draw each method's mean test accuracy against recordings per class, with 95 % intervals.

    Points of the same number are drawn side by side.
    """
    figure = Figure(figsize=(6, 3.8))
    axis = figure.subplots()
    methods = list(dict.fromkeys(mean.method for mean in means))
    for i, method in enumerate(methods):
        points = sorted((mean for mean in means if mean.method == method), key=lambda mean: mean.per_class)
        x = [point.per_class * 1.03 ** (i - (len(methods) - 1) / 2) for point in points]
        y = np.array([point.accuracy for point in points])
        spread = [y - [point.low for point in points], [point.high for point in points] - y]
        axis.errorbar(x, y, spread, label=method, marker="o", ms=4, capsize=3, lw=1.2)
    counts = sorted({mean.per_class for mean in means})
    axis.set_xscale("log")
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.set_xlim(counts[0] / 1.5, counts[-1] * 1.5)
    axis.set(xlabel="recordings per class to train on", ylabel="accuracy on test recordings")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    return figure


def confusion_matrices(matrices: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Draw the share of each true class (row) predicted as each class (column); matrices: name -> counts [K, K]."""
    columns = min(4, len(matrices))
    rows = -(-len(matrices) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.6, 3.2 * rows))
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    image = None
    for axis, (name, counts) in zip(axes.flat, matrices.items(), strict=False):
        share = counts / np.maximum(1, counts.sum(1, keepdims=True))
        image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axis.set_axis_on()
        axis.set_title(f"{name}: {np.trace(counts) / max(1, counts.sum()):.3f}", fontsize=9)
        axis.set(xlabel="predicted", ylabel="true")
        few = len(classes) <= 12
        ticks = range(len(classes)) if few else []
        axis.set_xticks(ticks, classes if few else [], fontsize=7, rotation=0 if max(map(len, classes)) < 3 else 90)
        axis.set_yticks(ticks, classes if few else [], fontsize=7)
    figure.tight_layout()
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
    return figure


def rate_bars(rates: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the firing rate of every spiking layer, runs side by side; rates: run -> layer -> share in [0, 1]."""
    layers = list(dict.fromkeys(layer for of_run in rates.values() for layer in of_run))
    figure = Figure(figsize=(2.0 + max(3.0, 0.9 * len(layers)), 3.4))
    axis = figure.subplots()
    width = 0.8 / len(rates)
    for i, (run, of_run) in enumerate(rates.items()):
        x = np.arange(len(layers)) + (i - (len(rates) - 1) / 2) * width
        axis.bar(x, [of_run.get(layer, 0.0) for layer in layers], width, label=run)
    axis.set_xticks(range(len(layers)), layers, fontsize=8, rotation=30, ha="right")
    axis.set(ylabel="neurons that fire in a step", ylim=(0, None))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    return figure
