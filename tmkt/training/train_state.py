"""Progress of a run."""

import math
from dataclasses import dataclass
from typing import Any

from ..errors import DamagedError
from .checkpoint import STATE
from .evaluation import Score


@dataclass
class TrainState:
    """Progress of a run: the part of a checkpoint that is not tensors."""

    step: int = 0  # optimiser steps done
    seconds: float = 0.0
    best_step: int | None = None  # of the best validation so far, by accuracy, then by loss
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    stale: int = 0  # validations since the best one
    mixed_loss: float = math.inf  # running mean of the mixed stream's loss, for schedule loss

    @staticmethod
    def of(state: dict[str, Any]) -> "TrainState":
        """Return the progress in a checkpoint's state. Raises DamagedError if a value is missing or of another kind."""
        kinds: dict[str, type] = {"step": int, "stale": int}
        kinds |= dict.fromkeys(("seconds", "best_accuracy", "best_loss", "mixed_loss"), float)
        best = state.get("best_step")
        right = all(type(state.get(name)) is kind for name, kind in kinds.items())
        if not right or not (best is None or type(best) is int):
            raise DamagedError(f"{STATE} lacks a value, or has one of another kind")
        return TrainState(**{name: state[name] for name in kinds}, best_step=best)

    def see_loss(self, loss: float) -> None:
        """Move the running mean towards the mixed stream's loss in the step just done."""
        self.mixed_loss = loss if math.isinf(self.mixed_loss) else 0.9 * self.mixed_loss + 0.1 * loss

    def validated(self, score: Score) -> bool:
        """Record a validation; return True if it is the best so far."""
        if (score.accuracy, -score.loss) > (self.best_accuracy, -self.best_loss):
            self.best_step, self.best_accuracy, self.best_loss, self.stale = self.step, score.accuracy, score.loss, 0
            return True
        self.stale += 1
        return False
