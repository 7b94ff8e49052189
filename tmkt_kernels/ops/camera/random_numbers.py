"""Counter-based random numbers: the same for any order, split or device."""

import operator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)

Array = TypeVar("Array", Tensor, np.ndarray)


def philox(key: Array, counter: Array, draw: Array | int) -> tuple[Array, Array, Array, Array]:
    """Return four random words of 32 bits: Philox4x32-10 (Salmon et al. 2011, doi:10.1145/2063384.2063405).

    key: int64, all 64 bits are used. counter, draw: the first two words of the counter, 0 to 2^32 - 1; the other two
    are zero. All broadcast. Returns int64 tensors or arrays of values from 0 to 2^32 - 1.
    """
    low, high = key & _LOW, (key >> 32) & _LOW
    zero = (key + counter + draw) * 0
    words = [counter + zero, draw + zero, zero, zero]
    for _ in range(10):
        # The product of two words wraps to a negative int64, whose bits are right.
        first, second = words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
        words = [
            ((second >> 32) & _LOW) ^ words[1] ^ low,
            second & _LOW,
            ((first >> 32) & _LOW) ^ words[3] ^ high,
            first & _LOW,
        ]
        low, high = (low + _KEY_STEPS[0]) & _LOW, (high + _KEY_STEPS[1]) & _LOW
    return words[0], words[1], words[2], words[3]


def uniform(word: Tensor) -> Tensor:
    """Return float32 in the open interval (0, 1), from the upper 23 bits of a word."""
    return ((word >> 9).float() + 0.5) * 2.0**-23


def normal(words: tuple[Tensor, ...]) -> Tensor:
    """Return float32 with mean 0 and variance 1: the sum of the eight halves of four words (Irwin and Hall).

    Nearly a standard normal, but never beyond 4.9: a sum of integers is the same on all devices.
    """
    total = sum((word >> 16) + (word & 0xFFFF) for word in words)
    assert isinstance(total, Tensor)
    return (total - NORMAL_MEAN).float() * NORMAL_SCALE


NORMAL_MEAN = 8 * 65535 // 2
NORMAL_SCALE = float(torch.tensor((8 * (65536**2 - 1) / 12) ** -0.5, dtype=torch.float32))


def sample_seeds(seed: int, samples: int) -> Tensor:
    """Return int64 [samples], 64 random bits for each sample of a batch, from one seed of 64 bits."""
    key = np.array([seed], dtype=np.uint64).view(np.int64)
    low, high, _, _ = philox(key, np.arange(samples), 0)  # arrays, since torch takes longer for each operation
    return torch.from_numpy(low | (high << 32))


def checked_seed(seed: object) -> int:
    """Return a seed of 64 bits, as an int; raise ValueError for anything else."""
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < 2**64:
        raise ValueError(f"seed: expected an integer from 0 to 2^64 - 1, got {seed!r}")
    return number
