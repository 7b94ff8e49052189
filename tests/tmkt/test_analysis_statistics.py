"""Statistics of cases with known answers."""

import numpy as np
import pytest
from scipy.stats import t as student_t

from tmkt.analysis.statistics import bootstrap, holm, outcome_table


def test_outcome_table_keeps_what_each_seed_tested():
    table = outcome_table([{"a": 1.0, "c": 0.0}, {"b": 1.0}])
    np.testing.assert_array_equal(table, [[1, np.nan, 0], [np.nan, 1, np.nan]])
    assert bootstrap(table).mean == 0.75  # mean over seeds of 1/2 and 1
    with pytest.raises(ValueError, match="every seed"):
        bootstrap(outcome_table([{"a": 1.0}, {}]))


def test_interval_of_one_seed_is_that_of_its_recordings():
    table = np.array([[1.0] * 320 + [0.0] * 80])
    interval = bootstrap(table)
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert interval.mean == 0.8
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.05)
    # The same outcome of the same recordings under every seed is no more evidence than under one.
    assert bootstrap(np.repeat(table, 4, axis=0))[:3] == pytest.approx(interval[:3], abs=0.003)


def test_interval_of_seeds_alone_has_their_unbiased_variance():
    of_seed = np.random.default_rng(0).normal(0.8, 0.05, 12)
    interval = bootstrap(np.repeat(of_seed[:, None], 30, axis=1))
    width = 2 * student_t.ppf(0.975, 11) * of_seed.std(ddof=1) / 12**0.5
    assert interval.high - interval.low == pytest.approx(width, rel=0.04)


@pytest.mark.parametrize("level", [0.5, 0.95, 1 - 0.05 / 18])
def test_interval_of_any_level_is_that_of_students_t(level):
    of_seed = np.random.default_rng(0).normal(0.8, 0.05, 12)
    interval = bootstrap(np.repeat(of_seed[:, None], 30, axis=1), level=level)
    width = 2 * student_t.ppf((1 + level) / 2, 11) * of_seed.std(ddof=1) / 12**0.5
    assert interval.high - interval.low == pytest.approx(width, rel=0.1)
    assert interval.mean == pytest.approx(of_seed.mean())


def test_interval_covers_the_truth_as_often_as_it_says():
    """Seeds and recordings both vary; five seeds, disjoint in part. The target is 95 %, but few seeds cover less."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(150):
        chance = np.clip(0.75 + rng.normal(0, 0.05, (5, 1)) + rng.normal(0, 0.15, (1, 120)), 0, 1)
        table = (rng.random((5, 120)) < chance).astype(float)
        table[rng.random(table.shape) < 0.3] = np.nan
        interval = bootstrap(table, replicates=400)
        covered += interval.low <= 0.743 <= interval.high  # the mean of the clipped chances
    assert 0.87 <= covered / 150 <= 1.0


def test_p_value_is_small_only_where_a_difference_is():
    rng = np.random.default_rng(2)
    assert bootstrap((rng.random((5, 200)) < 0.2).astype(float)).p < 0.001
    assert bootstrap(rng.choice([-1.0, 0.0, 1.0], (5, 200), p=[0.1, 0.8, 0.1])).p > 0.05
    assert bootstrap(np.zeros((3, 20))).p == 1.0


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
