"""What a table of accuracies can say: intervals, paired differences and their significance.

Chance enters twice, by the seeds (weights, split, order) and by the recordings that happen to be tested. The bootstrap
here draws both anew, crossed: a recording gets one weight for all seeds that tested it (the pigeonhole bootstrap, Owen,
Annals of Applied Statistics 2007). Two methods of one seed see the same recordings, so a difference is bootstrapped
recording by recording, which cancels what both find hard.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

REPLICATES = 10_000
_CHUNK = 1_000  # replicates drawn at a time: bounds the memory for large test sets


class Interval(NamedTuple):
    """A mean, its 95 % bootstrap interval, and the two-sided p value of "the mean is 0"."""

    mean: float
    low: float
    high: float
    p: float


def outcome_table(runs: Sequence[Mapping[str, float]]) -> np.ndarray:
    """One mapping recording -> value for each seed, as float [seeds, recordings]; NaN: not tested by that seed."""
    column = {name: i for i, name in enumerate(sorted({name for run in runs for name in run}))}
    table = np.full((len(runs), len(column)), np.nan)
    for row, run in zip(table, runs, strict=True):
        row[[column[name] for name in run]] = list(run.values())
    return table


def bootstrap(table: np.ndarray, replicates: int = REPLICATES) -> Interval:
    """Mean over seeds of the mean over their recordings, with the chance of both.

    Of S seeds S - 1 are drawn, with which the variance between seeds is unbiased (drawing S makes it S / (S - 1) times
    too small, which matters at 3 seeds); one seed alone is kept, and the interval then knows nothing of other seeds.
    Recordings get exponential weights (Bayesian bootstrap, Rubin 1981): never all zero for a seed.

    A permutation of signs would be exact, but over seeds it cannot get below p = 2 / 2^S (0.06 at 5), and over
    recordings it would take the seeds at hand for all there are.

    Args:
        table: float [seeds, recordings], NaN where a seed did not test a recording: 0 and 1, or differences of them.
    """
    tested = ~np.isnan(table)
    if table.size == 0 or not tested.any(axis=1).all():
        raise ValueError(f"table: expected every seed to test a recording, got a table of shape {table.shape}")
    values, tested = np.where(tested, table, 0.0), tested.astype(float)
    seeds, recordings = values.shape
    rng = np.random.default_rng(0)  # the same table gives the same interval
    parts = []
    for start in range(0, replicates, _CHUNK):
        count = min(_CHUNK, replicates - start)
        weight = rng.exponential(size=(count, recordings))
        of_seed = (weight @ values.T) / (weight @ tested.T)
        drawn = rng.multinomial(max(1, seeds - 1), np.full(seeds, 1 / seeds), size=count)
        parts.append((of_seed * drawn).sum(1) / drawn.sum(1))
    means = np.concatenate(parts)
    low, high = np.quantile(means, [0.025, 0.975])
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    mean = (values.sum(1) / tested.sum(1)).mean()
    return Interval(float(mean), float(low), float(high), min(1.0, 2 * (tail + 1) / (replicates + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979): reject where the result is below the level."""
    order = np.argsort(p_values)
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[i])
        corrected[i] = min(1.0, running)
    return corrected
