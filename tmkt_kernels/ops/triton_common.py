"""Helpers shared by the Triton kernels."""

import triton
import triton.language as tl


@triton.jit
def where_also(mask, condition):
    """mask [BLOCK] and a scalar, which is broadcast first, as Triton 3.9's interpreter cannot combine the two."""
    return mask & (tl.full(mask.shape, condition, tl.int32) != 0)
