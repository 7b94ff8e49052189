"""Distance between the two domains in a run's network: CKA per layer and step, t-SNE, accuracy of MAG and MRP heads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from torch import Tensor

from ..errors import UserError
from ..method.losses import linear_cka
from ..method.transfer import TransferTask
from ..mixup import event_step_mask, sample_switch_steps
from ..models.activity import recorded_spikes
from ..models.finite import check_finite
from ..models.modes import evaluation_mode, frozen_running_statistics
from ..training.checkpoint import TASK, check_tensors
from .finished_run import FinishedRun, TestSamples

MEMBRANE = "membrane potential"  # of the last spiking layer; DA aligns it
_SHUFFLES = 5
_TSNE_INPUTS = 50  # principal components


def layer_features(run: FinishedRun, samples: TestSamples) -> dict[str, dict[str, Tensor]]:
    """Return domain -> layer -> float32 [T, B, D] on the CPU: each layer's spikes, then the last membrane potential."""
    features = {}
    for domain, x_seq in samples.domains().items():
        with evaluation_mode(run.model), recorded_spikes(run.model) as spikes:
            output = run.model(x_seq)
        layers = {**spikes, MEMBRANE: output.features}
        features[domain] = {name: values.flatten(2).float().cpu() for name, values in layers.items()}
    return features


class LayerCKA(NamedTuple):
    """Linear CKA of a layer's static and event features at each of T steps, and the value for unrelated samples."""

    cka: list[float]
    chance: list[float]


def domain_cka(features: dict[str, dict[str, Tensor]]) -> dict[str, LayerCKA]:
    """Compute the linear CKA of static and event features of the same samples, per layer.

    CKA of few samples with many features is far from 0 even for unrelated ones: `chance` is its mean with the samples
    of one side shuffled. A step in which a layer does not vary over the samples has CKA 0.
    """
    result = {}
    shuffle = torch.Generator().manual_seed(0)
    for layer, static in features["static"].items():
        event = features["event"][layer]
        orders = [torch.randperm(static.shape[1], generator=shuffle) for _ in range(_SHUFFLES)]
        chance = torch.stack([linear_cka(static[:, order], event) for order in orders]).mean(0)
        result[layer] = LayerCKA(linear_cka(static, event).tolist(), chance.tolist())
    return result


def draw_cka(cka: dict[str, LayerCKA]) -> Figure:
    """Draw CKA, and CKA above chance, as layers by steps."""
    values = np.array([[row.cka, np.subtract(row.cka, row.chance)] for row in cka.values()])
    layers, T = len(cka), values.shape[-1]
    figure = Figure(figsize=(3.2 + 0.75 * T, 1.4 + 0.34 * layers))
    axes: Any = figure.subplots(1, 2, sharey=True)
    for i, (axis, title) in enumerate(zip(axes, ("CKA of static and event features", "above chance"), strict=True)):
        image = axis.imshow(values[:, i], cmap="viridis", vmin=0, vmax=1, aspect="auto")
        axis.set(title=title, xlabel="time step", xticks=range(T), yticks=range(layers))
        axis.title.set_fontsize(9)
        axis.set_yticks(range(layers), list(cka), fontsize=8)
        for (row, t), value in np.ndenumerate(values[:, i]) if T <= 20 else ():
            colour = "white" if value < 0.6 else "black"
            axis.text(t, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.9)
    return figure


class Silhouettes(NamedTuple):
    """Silhouettes of features, in -1..1. Near 1, classes (or domains) form separate clusters."""

    silhouette_class: float
    silhouette_domain: float


def embed(features: dict[str, dict[str, Tensor]], label: Tensor) -> tuple[np.ndarray, Silhouettes]:
    """Embed the time-mean membrane potential of both domains by t-SNE: [static samples, then event samples, 2].

    The silhouettes are those of the features themselves.
    """
    points = np.concatenate([features[domain][MEMBRANE].mean(0).numpy() for domain in ("static", "event")])
    components = min(_TSNE_INPUTS, *points.shape)
    reduced = PCA(components, random_state=0).fit_transform(points)
    tsne = TSNE(perplexity=min(30.0, (len(points) - 1) / 3), init="pca", random_state=0)
    classes, domains = np.tile(label.numpy(), 2), np.repeat([0, 1], len(label))
    silhouettes = Silhouettes(float(silhouette_score(points, classes)), float(silhouette_score(points, domains)))
    return tsne.fit_transform(reduced), silhouettes


def draw_embedding(places: np.ndarray, label: Tensor, classes: Sequence[str]) -> Figure:
    """Draw the embedding. Colour is the class, a ring a static image, a filled dot a recording."""
    figure = Figure(figsize=(6.4, 5))
    axis = figure.subplots()
    half = len(label)
    colours = class_colours(len(classes))
    for k, name in enumerate(classes):
        of_class = (label == k).numpy()
        static, event = places[:half][of_class], places[half:][of_class]
        axis.scatter(static[:, 0], static[:, 1], s=22, facecolors="none", edgecolors=[colours[k]], linewidths=0.9)
        axis.scatter(event[:, 0], event[:, 1], s=20, color=[colours[k]], linewidths=0, label=name)
    if len(classes) <= 20:
        axis.legend(title="class", frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(xticks=[], yticks=[], title="t-SNE of the last membrane potential: rings images, dots recordings")
    axis.title.set_fontsize(9)
    return figure


def class_colours(count: int) -> np.ndarray:
    """Return RGBA [count, 4], as distinct as possible."""
    if count <= 10:
        return colormaps["tab10"](np.arange(count))
    return colormaps["nipy_spectral"](np.linspace(0, 0.95, count))


class MagAccuracy(NamedTuple):
    """Accuracy of the MAG head: over all steps, per step, and of always giving the more common answer."""

    accuracy: float
    accuracy_by_step: list[float]
    commoner: float


class MrpError(NamedTuple):
    """MRP head: mean absolute error of the share of event steps, that of always giving the mean, and correlation."""

    mean_absolute_error: float
    mean_absolute_error_of_mean: float
    correlation: float


class Guidance(NamedTuple):
    """Accuracy of a run's heads; None for a head that the run does not have."""

    mag: MagAccuracy | None = None
    mrp: MrpError | None = None


def guidance(run: FinishedRun, samples: TestSamples) -> Guidance:
    """Test the run's MAG and MRP heads on held-out recordings, mixed by TSM at r = 0.5.

    The weights are those of the last checkpoint, which has the heads. Batch norms use their batch, as in training,
    because the running statistics are those of events alone.
    """
    config = run.config
    T = config.data.time_steps
    task = TransferTask(run.model, config.transfer, config.model.neuron.v_threshold, T)
    saved = run.folder.checkpoints.steps()
    if (task.mag_head is None and task.mrp_head is None) or not saved:
        return Guidance()
    try:
        weights = run.folder.checkpoints.load(saved[-1]).weights
        check_tensors(weights, task.state_dict(), TASK)
        check_finite(weights, TASK, "no run should have written that")
    except UserError as error:
        raise UserError(
            f"run {run.folder}: checkpoint of step {saved[-1]}: {error}; `tmkt train` makes it again"
        ) from error
    trained = {name: value.clone() for name, value in run.model.state_dict().items()}
    task.load_state_dict(weights)
    task.to(run.device).train()
    switch_step = sample_switch_steps(len(samples), T, 0.5, run.generator(1))
    is_event = event_step_mask(switch_step, T)
    with torch.no_grad(), frozen_running_statistics(task.model):
        features = task.features(*task.model.backbone(samples.sequence(switch_step)))
        mag = mrp = None
        if task.mag_head is not None:
            mag = _mag(task.mag_head(features).squeeze(-1).cpu() > 0, is_event.bool())
        if task.mrp_head is not None:
            mrp = _mrp(torch.sigmoid(task.mrp_head(features.mean(0)).squeeze(-1)).cpu(), is_event.mean(0))
    run.model.load_state_dict(trained)
    return Guidance(mag, mrp)


def _mag(predicted: Tensor, is_event: Tensor) -> MagAccuracy:
    right, share = (predicted == is_event).float(), is_event.float().mean()
    return MagAccuracy(float(right.mean()), right.mean(1).tolist(), float(torch.maximum(share, 1 - share)))


def _mrp(predicted: Tensor, share: Tensor) -> MrpError:
    return MrpError(
        float((predicted - share).abs().mean()),
        float((share - share.mean()).abs().mean()),
        float(torch.corrcoef(torch.stack([predicted, share]))[0, 1]),
    )
