"""The model card of an exported run: README.md with its figures, where they come from, and how to use the network."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

import tmkt

from ..analysis.statistics import wilson
from ..config import Config
from ..progress import count

_NAMED = 100  # classes, at most, that a card lists


class Facts(NamedTuple):
    """What a card states. score, split, environment: records of the run. roots: keys whose paths were cut."""

    name: str
    config: Config
    classes: tuple[str, ...]
    score: dict[str, Any]
    split: dict[str, Any]
    environment: dict[str, Any]
    roots: list[str]


def text(facts: Facts, formats: Sequence[str]) -> str:
    """Return the card in Markdown."""
    config, score = facts.config, facts.score
    more = ", and so on, by label in split.json" if len(facts.classes) > _NAMED else ""
    low, high = wilson(score["correct"], score["total"])
    rows = {
        "accuracy": f"{score['accuracy']:.4f} ({score['correct']}/{score['total']} test recordings), 95 % Wilson "
        f"interval {low:.4f} to {high:.4f}",
        "classes": f"{len(facts.classes)}: {', '.join(facts.classes[:_NAMED])}{more}",
        "network": _network(config),
        "input": _input(config),
        "method": f"{config.transfer.method}, {count(score['step'], 'optimiser step')}, seed {config.seed}; "
        f"{_weights(config)}",
        "data": _data(config, facts.split),
        "versions": _versions(facts.environment),
    }
    table = "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())])
    parts = [
        "---\nlibrary_name: tmkt\ntags: [spiking-neural-network, event-camera]\n---",
        f"# {facts.name}: {config.model.name} on event recordings, trained with {config.transfer.method}",
        table,
        "## Use",
        _usage(formats),
        "## Made by",
        _commands(facts, formats),
        "## Intended use and limits",
        _limits(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _network(config: Config) -> str:
    neuron, options = config.model.neuron, config.model.options
    more = "".join(f", {name} {value}" for name, value in options.items())
    return f"{config.model.name}{more}; LIF neurons with tau {neuron.tau:g}, threshold {neuron.v_threshold:g}"


def _weights(config: Config) -> str:
    decay = config.transfer.average
    averaged = f"moving average of the weights (decay {decay:g}) at" if decay > 0 else "weights of"
    return f"{averaged} the {'best validation' if config.train.select == 'best' else 'last step'}"


def _input(config: Config) -> str:
    width, height = config.data.size
    return (
        f"float32 [T, B, 2, H, W] with T = {config.data.time_steps}, H = {height}, W = {width}: counts of off and on "
        f"events in T frames of equal duration, times {config.data.events.scale:g}"
    )


def _data(config: Config, split: dict[str, Any]) -> str:
    events, static = config.data.events, config.data.static
    kind = f"recordings (source {events.source}{f', {events.root}' if events.root else ''})"
    parts = f"{len(split['train'])} to train on, {len(split['validation'])} to validate, {len(split['test'])} to test"
    images = f"{count(len(split['static_images']), 'image')} of {static.source}" if static.source else "no images"
    bridge = "; new simulated recordings in each step" if config.simulated else ""
    return f"{kind}: {parts}; {images}{bridge}"


def _versions(environment: dict[str, Any]) -> str:
    trained = ", ".join(f"{name} {environment[name]}" for name in ("tmkt", "torch", "python") if name in environment)
    device = environment.get("device", "an unknown device")
    now = f"exported with tmkt {tmkt.__version__}, torch {torch.__version__}"
    return f"trained with {trained or 'unknown versions'} on {device}; {now}"


def _usage(formats: Sequence[str]) -> str:
    snippets = [
        """\
`pip install 'tmkt[train]'`, then in this folder, with recordings as `recordings/<class>/<file>`:

```sh
tmkt eval . --events recordings
```

```python
from tmkt.data import load_folder
from tmkt.models.modes import evaluation_mode
from tmkt.training.run_folder import RunFolder

config, model, classes = RunFolder(".").load_model()
recordings = load_folder(config, classes, "recordings")
with evaluation_mode(model):
    logits = model(recordings.frames.float() * config.data.events.scale).logits.mean(0)
for name, label in zip(recordings.names, logits.argmax(1).tolist()):
    print(name, classes[label])
```"""
    ]
    if "torch" in formats:
        snippets.append("""\
model.pt2, for any batch; it needs only torch, and tmkt_kernels for its operators:

```python
import torch
import tmkt_kernels

model = torch.export.load("model.pt2").module()  # [T, B, 2, H, W] -> logits [T, B, K]
```""")
    if "nir" in formats:
        snippets.append("""\
model.nir; each batch norm is folded into its convolution, so that a spike at the threshold may differ:

```python
import nir
from tmkt_kernels.compat.nir import from_nir

model = from_nir(nir.read("model.nir"))  # [T, B, 2, H, W] -> logits [T, B, K]
```""")
    return "\n\n".join(snippets)


def _commands(facts: Facts, formats: Sequence[str]) -> str:
    places = "".join(f" {key}=..." for key in facts.roots)
    chosen = f" --format {' '.join(formats)}" if formats else ""
    note = "\n\nconfig.yaml has only the last name of these paths; give your own." if facts.roots else ""
    run = f"runs/{facts.name}"
    return f"```sh\ntmkt train config.yaml{places} out={run}\ntmkt export {run} {facts.name}{chosen}\n```{note}"


def _limits(facts: Facts) -> str:
    config = facts.config
    made = {"simulated": "simulated", "strokes": "made from pen strokes"}.get(config.data.events.source)
    origin = f" They are {made}, not of a camera." if made else ""
    return f"""\
For research on spiking networks and event cameras: classification of recordings like its test recordings.

- The accuracy is that of one seed. The interval is for the choice of the {facts.score["total"]} test recordings alone.
  It holds for others like them, not for another camera, scene or motion.{origin}
- The network always answers one of its {len(facts.classes)} classes, also for a recording of none of them.
- Its logits are not calibrated.
- Frames must be made as in training: see the row "input", and `data` in config.yaml.
- Nobody has examined it for use where a wrong answer does harm."""
