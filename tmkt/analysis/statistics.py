"""Statistics of a table of accuracies: intervals, paired differences and their significance.

Chance enters twice, through the seeds (weights, split, order) and through the choice of test recordings. The bootstrap
here resamples both, crossed: a recording gets one weight for all seeds that tested it (the pigeonhole bootstrap, Owen,
Annals of Applied Statistics 2007). The crossed bootstrap counts the seed-recording interaction three times; replicates
are therefore shrunk to the two-way clustered variance, which counts it once (Cameron, Gelbach, Miller, Journal of
Business & Economic Statistics 2011). Two methods of one seed see the same recordings, so their difference is taken per
recording, which cancels the difficulty of a recording for both. docs/experiments.md has the coverage of the intervals.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

REPLICATES = 10_000
_CHUNK = 1_000  # replicates at a time, which bounds the memory for large test sets


class Interval(NamedTuple):
    """A mean, its bootstrap interval, and the two-sided p value of "the mean is 0"."""

    mean: float
    low: float
    high: float
    p: float


def outcome_table(runs: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Return one mapping recording -> value per seed as float [seeds, recordings]; NaN: not tested by that seed."""
    column = {name: i for i, name in enumerate(sorted({name for run in runs for name in run}))}
    table = np.full((len(runs), len(column)), np.nan)
    for row, run in zip(table, runs, strict=True):
        row[[column[name] for name in run]] = list(run.values())
    return table


def bootstrap(table: np.ndarray, replicates: int = REPLICATES, level: float = 0.95) -> Interval:
    """Bootstrap the mean over seeds of the mean over their recordings, with the chance of both.

    A single seed is kept, and the interval then does not cover the choice of seeds. Recordings get exponential weights
    (Bayesian bootstrap, Rubin 1981), which are never all zero for a seed.

    A permutation of signs would be exact, but over seeds it cannot give p below 2 / 2^S (0.06 at 5), and over
    recordings it would ignore the variation between seeds.

    Args:
        table: float [seeds, recordings], NaN if a seed did not test a recording: 0 and 1, or differences of them.
        level: how often the interval covers the mean; 1 - 0.05 / n for n intervals that all shall, 19 times in 20.
    """
    tested = ~np.isnan(table)
    if table.size == 0 or not tested.any(axis=1).all():
        raise ValueError(f"table: expected every seed to test a recording, got a table of shape {table.shape}")
    values, tested = np.where(tested, table, 0.0), tested.astype(float)
    seeds, recordings = values.shape
    rng = np.random.default_rng(0)  # so that the same table gives the same interval
    parts = []
    for start in range(0, replicates, _CHUNK):
        count = min(_CHUNK, replicates - start)
        weight = rng.exponential(size=(count, recordings))
        of_seed = (weight @ values.T) / (weight @ tested.T)
        copies = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count)
        parts.append((of_seed * copies).sum(1) / seeds)
    means = np.concatenate(parts)
    mean = (values.sum(1) / tested.sum(1)).mean()
    outside = (1 - level) / 2
    if means.std() > 0:
        half_width = float(norm.ppf(1 - outside)) * means.std()
        means = mean + (means - mean) * (_half_width(values, tested, mean, outside) / half_width)
    low, high = np.quantile(means, [outside, 1 - outside])
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    return Interval(float(mean), float(low), float(high), min(1.0, 2 * (tail + 1) / (replicates + 1)))


def _half_width(values: np.ndarray, tested: np.ndarray, mean: float, outside: float) -> float:
    """Return half of the interval with a share `outside` beyond each end, from the two-way clustered variance.

    Variance by seeds + by recordings - by both; never below that by recordings, which is an estimate from many, whereas
    the one by seeds has S - 1 degrees of freedom and may be near 0. Student's t for the few seeds, with the degrees of
    freedom of the sum: Satterthwaite 1946.
    """
    seeds, recordings = values.shape
    error = tested * (values - mean) / (seeds * tested.sum(1, keepdims=True))
    by_seed = error.sum(1) @ error.sum(1) * seeds / max(1, seeds - 1)
    by_recording = error.sum(0) @ error.sum(0) * recordings / max(1, recordings - 1)
    more = max(0.0, by_seed - np.square(error).sum()) if seeds > 1 else 0.0  # added by seeds to recordings
    variance = by_recording + more
    freedom = variance**2 / (more**2 / max(1, seeds - 1) + by_recording**2 / max(1, recordings - 1))
    return float(student_t.ppf(1 - outside, freedom) * variance**0.5)


def wilson(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, for the random choice of test recordings (Wilson 1927)."""
    p = correct / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (p * (1 - p) / total + z * z / (4 * total * total)) ** 0.5
    return centre - half, centre + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979); reject if the result is below the level."""
    order = np.argsort(p_values)
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[i])
        corrected[i] = min(1.0, running)
    return corrected
