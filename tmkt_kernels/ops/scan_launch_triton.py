"""Launches of the scan in Triton: number of programs, neurons per program, steps per chunk."""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .scan_triton import scan_bwd_kernel, scan_fwd_kernel
from .scan_values import Gradients, Neuron, Norm, Outputs, Results, Statistics

MAX_CHUNK = 16  # the h of a chunk take 16 x 4 registers per thread; twice that would spill
NUM_WARPS = 2  # 32 programs of 64 threads fill an SM of sm_80 or sm_90, and small layers reach more SMs than with 128
# Fusion would turn a*v + b*x + c into FMAs, whose single rounding flips spikes against the reference.
LAUNCH_FWD = {"num_warps": NUM_WARPS, "enable_fp_fusion": False}
# Without the limit, ptxas spills a value or two of backward to fit one more program onto an SM.
LAUNCH_BWD = {**LAUNCH_FWD, "maxnreg": 255}


def chunk_size(T: int) -> int:
    """Return the steps to hold in registers. Three kernels serve every T, and a short T computes few steps in vain."""
    return 4 if T <= 4 else 8 if T <= 8 else MAX_CHUNK


def block_sizes(N: int, vec: int) -> dict[str, int]:
    """`vec` neurons per thread, loaded as one vector; a single neuron if N leaves later steps unaligned.

    Triton does not specialise N and T, so these are the only two variants, and a new size does not recompile.
    """
    vec = vec if N % vec == 0 else 1
    return {"BLOCK": 32 * NUM_WARPS * vec, "VEC": vec}


class Layout(NamedTuple):
    """Position of the channels of x [T, ...], and with pooling the width of its planes; 0 means no pooling.

    Neuron n of a step belongs to channel n // inner % channels.
    """

    channels: int = 1
    inner: int = 1
    pool_width: int = 0

    def launch(self, x: Tensor, vec: int) -> tuple[tuple[int], tuple[int, ...], dict[str, Any]]:
        """Return the grid, the sizes T to WIDTH, and the constants that depend on sizes."""
        T, N = x.shape[0], x[0].numel()
        slots, blocks = N, block_sizes(N, vec)
        if self.pool_width:  # the pixels of all cells, whole or not
            cells = ((self.inner // self.pool_width + 1) // 2) * ((self.pool_width + 1) // 2)
            slots, blocks = 4 * cells * (N // self.inner), block_sizes(1, 2)  # 2: one neuron per thread
        constants = {"POOL": self.pool_width > 0, "CHUNK": chunk_size(T), **blocks}
        sizes = (T, N, self.channels, self.inner, max(self.pool_width, 1))
        return (triton.cdiv(slots, blocks["BLOCK"]),), sizes, constants


def scan_forward(
    x: Tensor, v_init: Tensor | None, norm: Norm | None, neuron: tuple[Neuron, Any], layout: Layout, out: Outputs
) -> None:
    """Run all steps of x [T, ...] and fill `out`."""
    grid, sizes, constants = layout.launch(x, 16 // x.element_size())
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        scan_fwd_kernel[grid](
            x,
            v_init,
            norm,
            neuron[1],
            out,
            *sizes,
            NEURON=neuron[0],
            **constants,
            **LAUNCH_FWD,
        )


def scan_backward(
    grads: Gradients,
    x: Tensor,
    v_init: Tensor | None,
    norm: Norm | None,
    neuron: tuple[Neuron, Any],
    layout: Layout,
    out: Results,
    statistics: Statistics | None = None,
) -> None:
    """Fill `out` from the gradients of the outputs; x [T, ...] is forward's."""
    chunks = (x.shape[0] - 1) // chunk_size(x.shape[0])
    # 4 neurons per thread, which are 16 bytes in fp32. A batch norm and several chunks leave registers for 2, and five
    # sums per neuron for 1.
    vec = 1 if out.coefficients is not None else 2 if norm is not None and chunks > 0 else 4
    grid, sizes, constants = layout.launch(x, vec)
    v_chunk = x.new_empty((chunks, x[0].numel()), dtype=torch.float32) if chunks else None
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        scan_bwd_kernel[grid](
            grads,
            x,
            v_init,
            norm,
            neuron[1],
            statistics,
            v_chunk,
            out,
            *sizes,
            NEURON=neuron[0],
            **constants,
            **LAUNCH_BWD,
        )
