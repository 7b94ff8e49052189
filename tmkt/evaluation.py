"""Building a run's network, and scoring it on recordings."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import tmkt_kernels

from .config import Config, load_config
from .data import EventFrames, load_folder, prepare
from .errors import UserError
from .models import SpikingClassifier, create_model

EVAL_BATCH = 100


@dataclass(frozen=True)
class Score:
    """Of an evaluation: how many of how many recordings were classified right, the mean cross-entropy, and the class
    that was predicted for each recording, in their order."""

    correct: int
    total: int
    loss: float
    predicted: tuple[int, ...] = ()

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    @staticmethod
    def join(scores: "Sequence[Score]") -> "Score":
        """The score of all recordings from those of shares; share i of n has every n-th recording from i on."""
        total = sum(score.total for score in scores)
        loss = sum(score.loss * score.total for score in scores) / max(1, total)
        rounds = itertools.zip_longest(*(score.predicted for score in scores))
        predicted = tuple(answer for answers in rounds for answer in answers if answer is not None)
        return Score(sum(score.correct for score in scores), total, loss, predicted)


def build_model(config: Config, num_classes: int) -> SpikingClassifier:
    """The network of a configuration, its weights drawn from the seed."""
    neuron = asdict(config.model.neuron)
    _check_neuron(neuron)
    torch.manual_seed(config.seed)
    return create_model(
        config.model.name,
        num_classes=num_classes,
        size=config.data.size,
        heads=config.model.heads,
        neuron=neuron,
        **config.model.options,
    )


def _check_neuron(neuron: dict[str, Any]) -> None:
    """Let tmkt_kernels judge the neuron's settings before data is loaded; its message names the key."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tmkt_kernels.lif(torch.zeros(1, 1, device=device), **neuron)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"model.neuron: {error}") from error


@torch.no_grad()
def evaluate(model: SpikingClassifier, events: EventFrames, event_scale: float, device: torch.device) -> Score:
    """Classify recordings by the time-mean logits of the event head, batch norms in evaluation mode."""
    training = model.training
    model.eval()
    correct, loss, predicted = 0, 0.0, list[int]()
    for start in range(0, len(events), EVAL_BATCH):
        x_seq = events.frames[:, start : start + EVAL_BATCH].to(device).float() * event_scale
        label = events.labels[start : start + EVAL_BATCH].to(device)
        logits = model(x_seq).logits.float().mean(0)
        answer = logits.argmax(1)
        predicted += answer.tolist()
        correct += int((answer == label).sum())
        loss += float(torch.nn.functional.cross_entropy(logits, label, reduction="sum"))
    model.train(training)
    return Score(correct, len(events), loss / max(1, len(events)), tuple(predicted))


def predictions(events: EventFrames, score: Score) -> str:
    """What predictions.jsonl holds: name, label and predicted class of each recording, one JSON record a line."""
    rows = zip(events.names, events.labels.tolist(), score.predicted, strict=True)
    keys = ("name", "label", "predicted")
    return "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)


def load_run(run_dir: str | Path) -> tuple[Config, SpikingClassifier, tuple[str, ...]]:
    """A finished run's configuration, its network with the trained weights, and its classes."""
    run = Path(run_dir)
    for name in ("config.yaml", "split.json", "model.safetensors"):
        if not (run / name).is_file():
            raise UserError(f"run {run}: {name} is missing; expected the folder of a finished `tmkt train`")
    config = load_config(run / "config.yaml")
    classes = tuple(json.loads((run / "split.json").read_text(encoding="utf-8"))["classes"])
    model = build_model(config, len(classes))
    try:
        weights: dict[str, Tensor] = load_file(str(run / "model.safetensors"))
    except SafetensorError as error:
        raise UserError(f"run {run}: model.safetensors is damaged ({error}); `tmkt train` makes it again") from error
    model.load_state_dict(weights)
    return config, model, classes


def evaluate_run(run_dir: str | Path, events: str | Path | None = None) -> Score:
    """Score a finished run on recordings <class>/<id>.bin under `events`, or on its own test recordings."""
    config, model, classes = load_run(run_dir)
    frames = prepare(config).test if events is None else load_folder(config, classes, events)
    device = torch.device("cuda" if torch.cuda.is_available() and config.train.device == "auto" else "cpu")
    return evaluate(model.to(device), frames, config.data.events.scale, device)
