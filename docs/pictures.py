"""Draws the pictures of the documentation with our own code: `python docs/pictures.py [FOLDER]`."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from tmkt.analysis import figures
from tmkt.analysis.example_batch import example_batch, example_pairs
from tmkt.analysis.figures import EVENT_COLOUR, STATIC_COLOUR, save
from tmkt.config import AugmentConfig, TransferConfig, load_config
from tmkt.data import prepare, sample_pairs
from tmkt.data.augment import EventDrop, Mix, Nda
from tmkt.demo import SETTINGS
from tmkt.method.simulated import SimulatedPart, draw_spans
from tmkt.method.transfer import draw_switch_steps
from tmkt.mixup import event_step_mask, replacement_probability
from tmkt_kernels import lif
from tmkt_kernels.surrogate import Surrogate, derivative, parse_shape
from tmkt_kernels.testing import SURROGATE_SHAPES

IMAGES = Path(__file__).parent / "images"


def mixed_batch() -> Figure:
    """Samples of the first training step of `tmkt demo`."""
    config = load_config(None, SETTINGS)
    mixed = example_batch(config, prepare(config), progress=0.0)
    assert mixed is not None
    return figures.mixed_batch(*mixed)


def bridge() -> Figure:
    """The mixed stream of one pair of the demo's data, with its simulated recording in no place and in each."""
    settings = ["data.bridge=camera", "data.bridge_share=1", "data.camera=any", "data.motion=nmnist"]
    data = prepare(load_config(None, [*SETTINGS, *settings])).train
    assert data.camera is not None
    T, switch = len(data.events.frames), torch.tensor([5])
    pairs = sample_pairs(data, 1, torch.Generator().manual_seed(4))
    assert pairs.simulated is not None
    image, recording = data.images[pairs.static_index].expand(T, 1, 2, -1, -1), data.events.frames[:, pairs.event_index]
    plain = torch.where(torch.arange(T).view(T, 1, 1, 1, 1) < switch, image / 255, recording.float())
    frames = data.camera.frames(pairs.simulated, torch.tensor([T]))
    rows, shown = [plain], [torch.zeros(T, 1, dtype=torch.bool)]
    for place in ("images", "between", "events"):
        spans = draw_spans(place, pairs.simulated.used, switch * 0, switch, T, torch.Generator().manual_seed(4))
        rows.append(SimulatedPart(frames, spans).put_into(plain, 1, 1.0))
        shown.append(spans.mask(1, T))
    labels = ["bridge: null", *(f"bridge_place:\n{place}" for place in ("images", "between", "events"))]
    title = "The mixed stream of one pair: its simulated recording in each place"
    return figures.sequences(torch.cat(rows, 1), switch.expand(4), labels, title, torch.cat(shown, 1))


def bridge_fitted() -> Figure:
    """Simulated recordings by cameras fitted to the demo's recordings, beside these."""
    config = load_config(None, [*SETTINGS, "transfer.method=bridge"])
    return figures.simulated_beside_recordings(*example_pairs(config, prepare(config)))


def augmentations() -> Figure:
    """The mixed stream of one pair of the demo's data, as it is and with each of `data.augment`."""
    config = load_config(None, SETTINGS)
    T, size, data = 6, config.data.size[::-1], prepare(config.replace(data__time_steps=6)).train
    pairs = sample_pairs(data, 2, torch.Generator().manual_seed(1))
    switch = torch.tensor([2, 4])
    shown = event_step_mask(switch, T)  # [T, 2]
    images, recordings = data.images[pairs.static_index] / 255, data.events.frames[:, pairs.event_index].float()
    both = torch.where(shown[..., None, None, None] > 0, recordings, images)  # the pair and its partner
    rows, labels, is_event = [both[:, :1]], ["as it is"], [shown[:, :1]]
    for name, streams, seed in (("nda", "both", 4), ("nda,\nstreams: events", "events", 0)):
        nda = Nda.draw(streams, 1, size, torch.Generator().manual_seed(seed))
        rows.append(nda.apply(both[:, :1].clone(), shown[:, :1] > 0))
        labels.append(name)
    for way, seed in (("steps", 6), ("a box", 573), ("cells", 0)):
        drop = EventDrop.draw(1.0, 1, (T, *size), torch.Generator().manual_seed(seed))
        rows.append(drop.apply(both[:, :1].clone(), shown[:, :1] > 0))
        labels.append(f"event_drop:\n{way}")
    is_event *= len(rows)
    mixes = {"cutmix": 4, "event_mix": 5, "time_mix": 3}
    for name, seed in mixes.items():
        settings = AugmentConfig.of({name: 1.0, "time_mix_with": "any"})
        mix = Mix.draw(settings, 1, (T, *size), torch.Generator().manual_seed(seed))
        assert mix is not None
        blend = mix.blend(torch.device("cpu"))
        rows.append(blend.sequences(both))
        is_event.append(blend.step_values(shown))
        labels.append(f"{name}: {float(blend.share):.0%}\nof the partner")
    title = "The mixed stream of one pair with each augmentation; the partner switches at step 4"
    none = torch.zeros(T, len(rows), dtype=torch.bool)
    return figures.sequences(
        torch.cat(rows, 1), switch[:1].expand(len(rows)), labels, title, none, torch.cat(is_event, 1)
    )


def switch_steps() -> Figure:
    """The law of the switch step for three mix ratios, T = 10."""
    T = 10
    figure = Figure(figsize=(8, 2.6))
    for axis, ratio in zip(figure.subplots(1, 3, sharey=True), (0.3, 0.5, 0.7), strict=True):
        p = replacement_probability(T, ratio)
        law = [p * (1 - p) ** t for t in range(T)] + [(1 - p) ** T]
        axis.bar(range(T + 1), law, color=[EVENT_COLOUR] * T + [STATIC_COLOUR])
        axis.set(title=f"ratio {ratio}: p = {p:.3f}", xlabel="first event step", xticks=range(0, T + 1, 2))
        axis.grid(axis="y", alpha=0.3)
    figure.axes[0].set_ylabel("probability")
    figure.axes[0].text(T - 0.7, 0.4, "T: never", ha="right", color=STATIC_COLOUR)
    figure.tight_layout()
    return figure


def streams() -> Figure:
    """Draw the steps of a batch that show events, for time-step mixup and sliding training, as in the trainer."""
    T, batch, generator = 10, 24, torch.Generator().manual_seed(42)
    methods = {
        "tmkt, ratio 0.5": TransferConfig(method="tmkt", ratio=0.5),
        "sliding, power 1, half-way": TransferConfig(method="sliding", power=1.0),
    }
    figure = Figure(figsize=(8, 3.9))
    for axis, (title, config) in zip(figure.subplots(1, 2, sharey=True), methods.items(), strict=True):
        switch = draw_switch_steps(config, batch, T, 0.5, generator)
        assert switch is not None
        shows_events = event_step_mask(switch, T).T  # [batch, T]
        axis.pcolormesh(shows_events, cmap=ListedColormap([STATIC_COLOUR, EVENT_COLOUR]), edgecolors="white")
        axis.set(title=title, xlabel="time step", yticks=[])
        axis.set_xticks([t + 0.5 for t in range(T)], range(T))
    figure.axes[0].set_ylabel("samples of a batch")
    figure.suptitle("orange: the static image; blue: event frames", fontsize=9)
    figure.tight_layout()
    return figure


def neurons() -> Figure:
    """Input, membrane potential before reset and spikes of one neuron under hard and under soft reset."""
    T = 40
    x_seq = 1.4 + 1.2 * torch.sin(torch.arange(T) / 5).view(T, 1)
    figure = Figure(figsize=(8, 3.6))
    rows = figure.subplots(2, 2, sharex=True, sharey="row", gridspec_kw={"height_ratios": (1, 2)})
    for column, v_reset in enumerate((0.0, None)):
        spikes, _, h = lif(x_seq, tau=4.0, v_reset=v_reset, return_v=True)
        fired = spikes[:, 0].nonzero()[:, 0]
        rows[0, column].bar(range(T), x_seq[:, 0].tolist(), color="0.7")
        rows[0, column].set(title=f"{'soft' if v_reset is None else 'hard'} reset, v_reset = {v_reset}")
        rows[1, column].plot(range(T), h[:, 0], marker=".", color=EVENT_COLOUR, label="h, before reset")
        rows[1, column].axhline(1.0, color="0.4", linestyle=":", label="v_threshold")
        rows[1, column].vlines(fired, 1.65, 1.8, color=STATIC_COLOUR, linewidth=2, label="spikes")
        rows[1, column].set(xlabel="time step")
    rows[0, 0].set_ylabel("x")
    rows[1, 0].set_ylabel("h")
    figure.tight_layout()
    figure.legend(*rows[1, 0].get_legend_handles_labels(), frameon=False, fontsize=9, ncols=3, loc="upper center")
    figure.subplots_adjust(top=0.83)
    return figure


def surrogates() -> Figure:
    """Draw each surrogate's replacement of the step's derivative, over u = h - v_threshold."""
    u = torch.linspace(-2, 2, 801)
    figure = Figure(figsize=(9, 5.2))
    for axis, surrogate in zip(figure.subplots(3, 7, sharex=True).flat, Surrogate, strict=True):
        shape = SURROGATE_SHAPES[surrogate]
        chosen = shape[0] if isinstance(shape[0], tuple) else 2.0
        axis.plot(u, derivative(u, surrogate, *parse_shape(surrogate, chosen)), color=EVENT_COLOUR)
        axis.axvline(0, color="0.6", linewidth=0.6)
        axis.set_title(f"{surrogate.name.lower()}\nalpha = {chosen}", fontsize=6.5)
        axis.tick_params(labelsize=6)
    figure.supxlabel("h - v_threshold", fontsize=8)
    figure.tight_layout()
    return figure


PICTURES: tuple[Callable[[], Figure], ...] = (
    mixed_batch,
    bridge,
    bridge_fitted,
    augmentations,
    switch_steps,
    streams,
    neurons,
    surrogates,
)


def main(folder: Path = IMAGES) -> None:
    for picture in PICTURES:
        print(save(picture(), folder / f"{picture.__name__}.png"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
