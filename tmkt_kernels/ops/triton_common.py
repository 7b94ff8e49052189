"""What the Triton kernels share."""

import triton
import triton.language as tl


@triton.jit
def where_also(mask, condition):
    """mask [BLOCK], where `condition`, a scalar, holds too. Joined as they are they would make no mask to the
    interpreter of Triton 3.9."""
    return mask & (tl.full(mask.shape, condition, tl.int32) != 0)
