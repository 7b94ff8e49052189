"""The coverage of the intervals of `tmkt compare`: prints the table in docs/experiments.md.

Two equal methods of accuracy 0.8, recordings of unequal difficulty (0.6 to 1), seeds that differ by `spread` (sd).
"""

import numpy as np

from tmkt.analysis.statistics import bootstrap

EXPERIMENTS, RECORDINGS, REPLICATES = 600, 300, 300


def main() -> None:
    rng = np.random.default_rng(5)
    for spread in (0.02, 0.04):
        for seeds in (1, 2, 3, 5, 10, 17):
            covered = different = 0
            for _ in range(EXPERIMENTS):
                difficulty = rng.uniform(-0.2, 0.2, (1, RECORDINGS))
                first, second = (0.8 + difficulty + spread * 3**0.5 * rng.uniform(-1, 1, (seeds, 1)) for _ in range(2))
                ours, theirs = ((rng.random(chance.shape) < chance).astype(float) for chance in (first, second))
                interval = bootstrap(ours, REPLICATES)
                covered += interval.low <= 0.8 <= interval.high
                different += bootstrap(ours - theirs, REPLICATES).p < 0.05
            shares = f"covered {covered / EXPERIMENTS:.3f}, equal called different {different / EXPERIMENTS:.3f}"
            print(f"spread {spread}, {seeds} seeds: {shares}", flush=True)


if __name__ == "__main__":
    main()
