"""A few samples as a training step sees them, for pictures."""

from collections.abc import Sequence

from torch import Tensor

from ..config import Config
from ..data import RunData, sample_pairs
from ..method.transfer import build_streams
from ..seeding import step_generator

_DRAWN = 10  # samples drawn per sample shown


def example_batch(
    config: Config, data: RunData, progress: float, samples: int = 6
) -> tuple[Tensor, Tensor, list[str]] | None:
    """Return (mixed [T, B, 2, H, W], switch_step [B], classes) of the mixed stream at `progress` in [0, 1), uncropped.

    `telling_rows` chooses them from a larger batch. None: the method mixes nothing.
    """
    generator = step_generator(config.seed, 0)
    pairs = sample_pairs(data.train, _DRAWN * samples, generator)
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
    switch_step = streams.switch_step.cpu()
    rows = telling_rows(switch_step.tolist(), pairs.label.tolist(), len(streams.mixed), samples)
    classes = [data.classes[label] for label in pairs.label[rows]]
    return streams.mixed[:, rows].cpu(), switch_step[rows], classes


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
