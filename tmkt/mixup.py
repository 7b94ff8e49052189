"""Time-step mixup (TSM, arXiv 2511.12150): drawing the switch from image steps to event steps.

Per sample, u_t ~ U(0, 1) for t = 0..T-1; the switch step is the first t with u_t < p, or T if there is none. Steps
before it show the static image, all others the event frames.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def expected_event_steps(T: int, p: float) -> float:
    """Return E[n], the mean number of event steps: T - (1-p) (1 - (1-p)^T) / p, or 0 at p = 0 and T at p = 1.

    Summed as n = sum_t P(switch <= t) = sum_{j=1..T} (1 - (1-p)^j), which does not cancel at small p.
    """
    if p >= 1.0:
        return float(T)
    log_stay = math.log1p(-p)
    return math.fsum(-math.expm1(j * log_stay) for j in range(1, T + 1))


@lru_cache(maxsize=4096, typed=True)  # typed, so that 2.0 does not find the entry of 2 but raises TypeError
def replacement_probability(T: int, ratio: float) -> float:
    """Return the probability p per step that gives event steps the share `ratio` on average: E[n] = ratio T.

    E[n] grows with p from 0 to T, so the root is unique; bisection finds it to the last bit.

    Args:
        T: time steps, >= 1.
        ratio: mean share of event steps, in [0, 1]. 0 gives p = 0, 1 gives p = 1.

    Raises:
        TypeError, ValueError: T is not a positive integer, or ratio lies outside [0, 1].
    """
    if not isinstance(T, int) or isinstance(T, bool):
        raise TypeError(f"T: expected an integer number of time steps, got {type(T).__name__}")
    if T < 1:
        raise ValueError(f"T: expected at least 1 time step, got {T}")
    if not 0.0 <= ratio <= 1.0:  # also false for NaN
        raise ValueError(f"ratio: expected a share of event steps in [0, 1], got {ratio}")
    if ratio in (0.0, 1.0):
        return float(ratio)
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        if expected_event_steps(T, middle) < ratio * T:
            low = middle
        else:
            high = middle
    return high


def sample_switch_steps(
    batch: int, T: int, ratio: float | Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    """Draw the first event step of each sample.

    Args:
        batch: number of samples.
        T: time steps.
        ratio: mean share of event steps, in [0, 1]; one number for all samples, or one per sample.
        generator: CPU generator; None uses torch's default one.

    Returns:
        int64 [batch] on the CPU, in 0..T: P(t) = p (1-p)^t for t < T, P(T) = (1-p)^T; T means no event step.
        This is t* - 1 of the paper, which counts steps from 1.

    Raises:
        TypeError, ValueError: as `replacement_probability`, and for a negative batch or a wrong number of ratios.
    """
    if batch < 0:
        raise ValueError(f"batch: expected a number of samples >= 0, got {batch}")
    ratios = [float(r) for r in ratio] if isinstance(ratio, Sequence) else [float(ratio)]
    if isinstance(ratio, Sequence) and len(ratios) != batch:
        raise ValueError(f"ratio: expected one share for each of {batch} samples, got {len(ratios)}")
    p = torch.tensor([replacement_probability(T, r) for r in ratios], dtype=torch.float64)[:, None]
    hit = torch.rand(batch, T, dtype=torch.float64, generator=generator) < p
    # A last column that always hits represents "none in 0..T-1", for which argmax then gives T.
    hit = torch.cat([hit, hit.new_ones(batch, 1)], dim=1)
    return hit.to(torch.uint8).argmax(dim=1)


def event_step_mask(switch_step: Tensor, T: int) -> Tensor:
    """Return m[t, b], 1 if step t of sample b is an event step: switch_step int64 [B] -> float32 [T, B]."""
    steps = torch.arange(T, device=switch_step.device)
    return (steps[:, None] >= switch_step).float()
