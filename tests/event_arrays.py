"""Arrays of events for tests: from columns, random, and by Hypothesis."""

import numpy as np
from hypothesis import strategies as st

from tmkt_kernels import events as ev


def recording(x, y, t, p):
    out = np.empty(len(t), ev.EVENT_DTYPE)
    out["x"], out["y"], out["t"], out["p"] = x, y, t, p
    return out


def random_recording(n=5000, width=240, height=180, span=300_000, seed=0):
    rng = np.random.default_rng(seed)
    t = 7 + np.sort(rng.integers(0, span, n))
    return recording(rng.integers(0, width, n), rng.integers(0, height, n), t, rng.integers(0, 2, n))


@st.composite
def recordings(draw, width=256, height=240, max_time=2**31, min_size=0):
    n = draw(st.integers(min_size, 40))
    column = lambda values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    return recording(
        column(st.integers(0, width - 1)),
        column(st.integers(0, height - 1)),
        sorted(column(st.integers(0, max_time))),
        column(st.booleans()),
    )
