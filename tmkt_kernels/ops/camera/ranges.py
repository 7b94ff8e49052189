"""Values drawn from ranges, for cameras and motions."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch

from .limits import MOST_SAMPLES, whole


def drawn(
    defaults: Mapping[str, Any],
    ranges: str | Mapping[str, tuple[float, float]],
    known: Mapping[str, Mapping[str, tuple[float, float]]],
    batch: int,
    generator: torch.Generator | None,
    *,
    uniform: Collection[str] = (),
) -> dict[str, Any]:
    """Return float64 [batch] for each field: drawn from its range, or filled with its default; None stays None.

    Fields in `uniform`, and those whose range begins at 0, are uniform in their range; the others in the logarithm.
    Every field takes its random numbers, whether it has a range or not, so that a range changes no other field.

    Raises:
        ValueError: an unknown name of ranges or of a field, or a range that is no pair of growing finite numbers.
    """
    batch = whole("batch", batch, 0, MOST_SAMPLES)
    if isinstance(ranges, str):
        if ranges not in known:
            raise ValueError(
                f"ranges: expected one of {', '.join(known)}, or (lowest, highest) by field; got {ranges!r}"
            )
        ranges = known[ranges]
    if unknown := set(ranges) - set(defaults):
        raise ValueError(f"ranges: expected fields of {', '.join(defaults)}; got {', '.join(sorted(unknown))}")
    values: dict[str, Any] = {}
    for name, default in defaults.items():
        share = torch.rand(batch, dtype=torch.float64, generator=generator)
        if name not in ranges:
            values[name] = None if default is None else torch.full((batch,), float(default), dtype=torch.float64)
            continue
        low, high = _pair(name, ranges[name])
        if name in uniform or low == 0:
            values[name] = low + share * (high - low)
        else:
            values[name] = (math.log(low) + share * (math.log(high) - math.log(low))).exp().clamp(low, high)
    return values


def _pair(name: str, value: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low <= high < math.inf:
        raise ValueError(f"ranges: expected (lowest, highest) of {name}, two finite numbers from 0 on; got {value!r}")
    return low, high
