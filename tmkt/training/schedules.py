"""Quantities that change with the step: the learning rate, and the progress that mixing follows."""

import math

from ..config import Config
from .train_state import TrainState


def learning_rate(step: int, base: float, warmup: int, phase_steps: list[int]) -> float:
    """Linear warm-up, then a cosine to zero, restarted in each phase; `step` counts optimiser steps from 0."""
    start, length = 0, phase_steps[0]
    for length in phase_steps:
        if step < start + length:
            break
        start += length
    warmup = min(warmup, length // 2)
    position = step - start
    if position < warmup:
        return base * (position + 1) / warmup
    return base * 0.5 * (1 + math.cos(math.pi * (position - warmup) / max(1, length - warmup)))


def progress(config: Config, state: TrainState, num_classes: int) -> float:
    """Return the share of the training done; for schedule loss of tmkt, that of the way from a guess's loss to 0."""
    if config.transfer.method == "tmkt" and config.transfer.schedule == "loss":
        return max(0.0, 1 - state.mixed_loss / math.log(num_classes))
    return state.step / config.train.steps
