"""Argument checks shared by the operators. A message names the argument, what was expected, and what came."""

import math
import operator
from typing import Any

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LARGEST = math.nextafter(math.inf, 0)
_LARGEST_SIDE = 2**15  # pixels; events hold coordinates in int16


def dense(name: str, value: Any, expected: str) -> Tensor:
    """Return `value` if it is a tensor with strides; `expected` describes it in the message.

    Raises:
        TypeError: it is something else, or sparse, nested or of another layout without strides.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor {expected}, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_nested:
        raise TypeError(f"{name}: expected a dense tensor {expected}, got one of layout {value.layout}; make it dense")
    return value


def floating(name: str, value: Any, expected: str) -> Tensor:
    """Like `dense`, for a dtype on which the kernels or the reference compute.

    Raises:
        TypeError: as `dense`, or the dtype is an integer, complex, 8 bits wide, or the like.
    """
    if dense(name, value, expected).dtype not in FLOAT_DTYPES:
        raise TypeError(
            f"{name}: expected a floating-point tensor, got {value.dtype}; "
            "convert it to float32, bfloat16, float16 or float64"
        )
    return value


def finite(name: str, value: Any, expected: str = "a finite float") -> float:
    """Return `value` as a float.

    Raises:
        TypeError: it is not a number. True and False are not numbers, because v_reset=False would be a hard reset to 0.
        ValueError: it is infinite, NaN, or an integer beyond the floats.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    if not -LARGEST <= value <= LARGEST:  # not math.isfinite, which torch.compile cannot trace for symbols
        raise ValueError(f"{name}: expected {expected}, got {value}")
    return float(value)


def checked_size(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return `size`, (width, height) in pixels, as ints; raise ValueError for anything else."""
    try:
        width, height = (operator.index(n) for n in size)
    except (TypeError, ValueError):
        width = height = 0
    if not (1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE):
        raise ValueError(f"{name}: expected (width, height) in pixels, each from 1 to {_LARGEST_SIDE}, got {size!r}")
    return width, height
