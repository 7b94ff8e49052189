"""Area resize in fixed point: the share of each source pixel in the target cells, as whole parts of 2^15."""

import functools

import numpy as np

SHARE_BITS = 15
"""An event has 2^15 parts along each axis, so that sums of parts are integers: the same in any order."""


@functools.lru_cache(maxsize=256)
def area_table(source: int, target: int) -> np.ndarray:
    """Return int32 [source, 1 + taps]: for each source pixel, the first target cell that it overlaps, and its shares.

    Pixel i spreads over the cells first .. first + taps - 1 with shares that sum to 2^15. Overlaps are exact integers
    before the one division.
    """
    # In units of 1 / (source * target) of the axis, a pixel is `target` long and a cell `source` long.
    begin = np.arange(source, dtype=np.int64) * target
    taps = max(int(((begin + target - 1) // source - begin // source + 1).max()), 2)
    # At least two taps, even where one would do, so that all reductions have one form, whose loop is unrolled.
    taps = min(taps, target)
    first = np.minimum(begin // source, target - taps)
    edges = (first[:, None] + np.arange(taps + 1)) * source
    inside = np.clip(edges, begin[:, None], begin[:, None] + target) - begin[:, None]  # 0 to target
    parts = ((inside << SHARE_BITS) * 2 + target) // (2 * target)  # the rounded running sum keeps the total exact
    table = np.concatenate([first[:, None], np.diff(parts, axis=1)], axis=1).astype(np.int32)
    table.setflags(write=False)
    return table
