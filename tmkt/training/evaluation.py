"""Evaluation of a network on recordings."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..data import EventFrames, digests, load_folder, load_test
from ..data.sources.opening import as_recorded
from ..models import SpikingClassifier
from ..models.finite import check_finite, finite_inputs
from ..models.modes import evaluation_mode
from ..progress import say
from .memory import enough_memory
from .network import device_for
from .run_folder import RunFolder

EVAL_BATCH = 100


@dataclass(frozen=True)
class Score:
    """Score of an evaluation: correct and total recordings, the mean cross-entropy, and the predicted class of each
    recording, in order."""

    correct: int
    total: int
    loss: float
    predicted: tuple[int, ...] = ()

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    @staticmethod
    def join(scores: "Sequence[Score]") -> "Score":
        """Return the score of all recordings from those of shares; share i of n has every n-th recording from i on."""
        total = sum(score.total for score in scores)
        loss = sum(score.loss * score.total for score in scores) / max(1, total)
        rounds = itertools.zip_longest(*(score.predicted for score in scores))
        predicted = tuple(answer for answers in rounds for answer in answers if answer is not None)
        return Score(sum(score.correct for score in scores), total, loss, predicted)


def evaluate(model: SpikingClassifier, events: EventFrames, event_scale: float, device: torch.device) -> Score:
    """Classify recordings by the time-mean logits of the event head, batch norms in evaluation mode."""
    correct, loss, predicted = 0, 0.0, list[int]()
    for start in range(0, len(events), EVAL_BATCH):
        x_seq = events.frames[:, start : start + EVAL_BATCH].to(device).float() * event_scale
        label = events.labels[start : start + EVAL_BATCH].to(device)
        with evaluation_mode(model), finite_inputs(model):
            logits = model(x_seq).logits.float().mean(0)
        answer = logits.argmax(1)
        predicted += answer.tolist()
        correct += int((answer == label).sum())
        loss += float(torch.nn.functional.cross_entropy(logits, label, reduction="sum"))
    check_finite({"the loss": torch.tensor(loss)}, "evaluation", "lower data.events.scale or train.lr")
    return Score(correct, len(events), loss / max(1, len(events)), tuple(predicted))


MEMBERSHIPS = ("unseen", "validated", "trained")  # whether a run has used the recordings that it is evaluated on


class Count(NamedTuple):
    """Correctly classified recordings, and their total."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float | None:
        """None without recordings."""
        return self.correct / self.total if self.total else None


class Evaluation(NamedTuple):
    """The score of all recordings, and the counts by membership."""

    score: Score
    parts: dict[str, Count]

    def record(self) -> dict[str, Any]:
        """Return plain values: accuracy, correct and total of the unseen recordings, and of each part."""
        each = {part: {"accuracy": count.accuracy, **count._asdict()} for part, count in self.parts.items()}
        return {**each["unseen"], "parts": each}


def evaluate_run(run_dir: str | Path, events: str | Path | None = None) -> Score:
    """Return the score of all recordings of `evaluate_parts`, seen or not."""
    return evaluate_parts(run_dir, events).score


def evaluate_parts(run_dir: str | Path, events: str | Path | None = None) -> Evaluation:
    """Score a finished run on recordings <class>/<id>.<ext> under `events`, or on its own test recordings.

    A recording was seen if the run's training or validation set has one with the same content, whatever its name and
    format; or one of the same folder and name that has changed since. Their number is printed on stderr.

    Raises:
        UserError: the run is damaged, or recordings cannot be read.
    """
    run = RunFolder(run_dir)
    config, model, classes = run.load_model()
    device = device_for(config)
    with enough_memory(config):
        frames = load_test(config) if events is None else load_folder(config, classes, events)
        score = evaluate(model.to(device), frames, config.data.events.scale, device)
    root = as_recorded(config).data.events.root
    own = events is None or (bool(root) and Path(events).resolve() == Path(root).resolve())
    membership = _membership(frames, run.split(), own)
    right = [answer == label for answer, label in zip(score.predicted, frames.labels.tolist(), strict=True)]
    parts = {part: [r for r, m in zip(right, membership, strict=True) if m == part] for part in MEMBERSHIPS}
    for part in ("trained", "validated"):
        if parts[part]:
            share = f"{len(parts[part])} of these {len(membership)} recordings"
            say(f"run {run_dir}: {share} are ones that it was {part} on")
    return Evaluation(score, {part: Count(sum(answers), len(answers)) for part, answers in parts.items()})


def _membership(events: EventFrames, record: dict[str, Any], own: bool) -> list[str]:
    """Return the one of `MEMBERSHIPS` for each recording, from the split.json of a run.

    own: the recordings are in the run's folder.
    """
    known = record.get("digests")
    if not isinstance(known, dict):
        say("split.json has no digests of the recordings: copies of seen ones under another name are not recognised")
        known = {}
    by_name: dict[str, str] = {}
    by_content: dict[str, str] = {}
    for part, key in (("validated", "validation"), ("trained", "train")):  # a recording in both was trained on
        by_name |= dict.fromkeys(record.get(key, []), part)
        by_content |= dict.fromkeys(known.get(key, []), part)
    contents = [by_content.get(digest) for digest in digests(events.frames)]
    names = [by_name.get(name) for name in events.names]
    if own:
        return [content or name or "unseen" for content, name in zip(contents, names, strict=True)]
    if namesakes := sum(name is not None and content is None for content, name in zip(contents, names, strict=True)):
        say(f"{namesakes} recordings have the name of one that the run has seen, but another content: taken as unseen")
    return [content or "unseen" for content in contents]
