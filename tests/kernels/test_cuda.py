"""On a GPU, the operators run in a CUDA graph, never wait for the device, allocate nothing but their outputs, and are
not recompiled for another batch or T."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tmkt_kernels as tk

pytestmark = pytest.mark.cuda
BACKENDS = ("native", "triton")


def lif(x, backend):
    return tk.lif(x, backend=backend)[0]


def bn_lif(x, backend):
    weight, bias = (torch.full((x.shape[2],), v, device=x.device, requires_grad=True) for v in (1.0, 0.0))
    return tk.bn_lif(x, weight, bias, backend=backend)[0]


def mixup(x, backend):
    switch_step = torch.arange(x.shape[1], device=x.device) % (x.shape[0] + 1)
    return tk.time_step_mixup(x[0].detach(), x, switch_step, backend=backend)


OPERATORS = (lif, bn_lif, mixup)
SCRATCH = {(operator, backend): 0 for operator in OPERATORS for backend in BACKENDS} | {(bn_lif, "triton"): 5}
"""Floats per neuron."""


def forward_backward(operator, x, backend):
    out = operator(x, backend)
    return out, torch.autograd.grad(out, x, torch.ones_like(out))[0]


def sequence(*shape):
    return (torch.randn(shape, device="cuda") * 1.5).requires_grad_()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: o.__name__)
class TestEachOperator:
    def test_runs_in_a_cuda_graph(self, operator, backend):
        x = sequence(4, 3, 8, 6, 6)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compile and warm up before the capture
            forward_backward(operator, x, backend)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out, grad = forward_backward(operator, x, backend)
        with torch.no_grad():
            x.copy_(torch.randn_like(x) * 2)
        graph.replay()
        expected = forward_backward(operator, x, backend)
        assert torch.equal(out, expected[0])
        assert torch.equal(grad, expected[1])

    def test_never_waits_for_the_device(self, operator, backend):
        x = sequence(4, 3, 8, 6, 6)
        forward_backward(operator, x, backend)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            forward_backward(operator, x, backend)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_allocates_nothing_but_small_change_beyond_its_outputs(self, operator, backend):
        """Statistics and other values per channel or block are at most 1 % of the outputs here. Triton's bn_lif also
        has sums per neuron, SCRATCH floats.
        """
        x = sequence(8, 16, 64, 16, 16)
        forward_backward(operator, x, backend)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out, grad = forward_backward(operator, x, backend)
        torch.cuda.synchronize()
        gradient_given = out.numel() * out.itemsize  # torch.ones_like
        outputs = sum(t.numel() * t.itemsize for t in (out, grad)) + x[0].numel() * 4  # v_last
        scratch = 4 * SCRATCH[operator, backend] * x[0].numel()
        assert torch.cuda.max_memory_allocated() - before <= 1.01 * outputs + gradient_given + scratch


PROGRAM = """
import sys, torch
from pathlib import Path
from tests.kernels.test_cuda import OPERATORS, forward_backward, sequence
compiled = lambda: len(list(Path(sys.argv[1]).rglob("*.cubin")))
def run(sizes):
    for T, B in sizes:
        for operator in OPERATORS:
            forward_backward(operator, sequence(T, B, 8, 4, 4), "triton")
run([(20, 2)])
first = compiled()
run([(T, B) for T in (17, 21, 40, 64, 200) for B in (1, 3, 4, 17, 64)])
print(first, compiled())
"""


def test_triton_compiles_once_for_all_batches_and_lengths(tmp_path):
    """Count the files in an empty cache of compiled kernels, in a separate process."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, later = map(int, done.stdout.split())
    assert first > 0
    assert later == first
