"""A few samples as a training step sees them, for pictures."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..config import Config
from ..data import Augmentation, RunData, sample_pairs
from ..method.transfer import build_streams
from ..mixup import event_step_mask
from ..seeding import step_generator

_DRAWN = 10  # samples drawn per sample shown


class Example(NamedTuple):
    """Samples of the mixed stream [T, B, 2, H, W], their switch step [B], class and share of events per step [T, B]."""

    mixed: Tensor
    switch_step: Tensor
    classes: list[str]
    is_event: Tensor


def example_batch(config: Config, data: RunData, progress: float, samples: int = 6) -> Example | None:
    """Return samples at `progress` in [0, 1), augmented by `data.augment` but not cropped, mirrored or rotated.

    `telling_rows` chooses them from a larger batch. None: the method mixes nothing.
    """
    generator = step_generator(config.seed, 0)
    pairs = sample_pairs(data.train, _DRAWN * samples, generator, Augmentation(augment=config.data.augment))
    streams = build_streams(
        config.transfer,
        data.train,
        pairs,
        progress=progress,
        event_scale=1.0,
        generator=generator,
    )
    if streams.mixed is None or streams.switch_step is None:
        return None
    switch_step, T = streams.switch_step.cpu(), len(streams.mixed)
    is_event = event_step_mask(switch_step, T) if streams.is_event is None else streams.is_event.cpu()
    rows = telling_rows(switch_step.tolist(), streams.classes.tolist(), T, samples)
    classes = [_named(label, data.classes) for label in streams.label[rows].cpu()]
    return Example(streams.mixed[:, rows].cpu(), switch_step[rows], classes, is_event[:, rows])


class ExamplePairs(NamedTuple):
    """Both streams of a step with simulated recordings, each [T, B, 2, H, W], and the class of each pair."""

    simulated: Tensor
    recordings: Tensor
    classes: list[str]


def example_pairs(config: Config, data: RunData, pairs: int = 3) -> ExamplePairs:
    """Return pairs of different classes of a run of method bridge, not cropped, mirrored or rotated."""
    generator = step_generator(config.seed, 0)
    drawn = sample_pairs(data.train, min(pairs, len(data.classes)), generator)
    streams = build_streams(
        config.transfer, data.train, drawn, progress=0.0, event_scale=config.data.events.scale, generator=generator
    )
    assert streams.mixed is not None
    classes = [data.classes[label] for label in streams.classes.tolist()]
    return ExamplePairs(streams.mixed.cpu(), streams.main.cpu(), classes)


def _named(label: Tensor, classes: Sequence[str]) -> str:
    """Name a class, or the shares of two, as in "60% of 3, 40% of 7"."""
    if label.dim() == 0:
        return classes[int(label)]
    shares = [(share, name) for share, name in zip(label.tolist(), classes, strict=True) if share > 0]
    if len(shares) == 1:
        return shares[0][1]
    return ", ".join(f"{share:.0%} of {name}" for share, name in sorted(shares, reverse=True))


def telling_rows(switch_steps: Sequence[int], labels: Sequence[int], T: int, samples: int) -> list[int]:
    """Return rows that show a mixture, with as many switch steps and classes as possible, in the order of the steps.

    Rows of the image alone (T) or of events alone (0) are taken only when no other is left.
    """
    rows: dict[int, list[int]] = {}
    for row, step in enumerate(switch_steps):
        rows.setdefault(step, []).append(row)
    chosen: list[int] = []
    inner, outer = [s for s in sorted(rows) if 0 < s < T], [s for s in sorted(rows) if s in (0, T)]
    for steps in (inner, outer):
        while any(rows[step] for step in steps) and len(chosen) < samples:
            left = [step for step in steps if rows[step]]
            places = min(len(left), samples - len(chosen))
            for step in (left[i * (len(left) - 1) // max(1, places - 1)] for i in range(places)):
                present = [labels[row] for row in chosen]
                best = min(rows[step], key=lambda row: present.count(labels[row]))
                rows[step].remove(best)
                chosen.append(best)
    return sorted(chosen, key=lambda row: switch_steps[row])
