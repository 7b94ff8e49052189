"""The choice of a backend is named, explained and never silent."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels import backends
from tmkt_kernels.extension import extension

PATH = ":".join(filter(None, sys.path))


def python(script, **env):
    """Run a script in a fresh interpreter without this one's Triton settings."""
    command = [sys.executable, "-c", script]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": PATH, **env}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)


def test_the_library_was_built():
    assert extension.problem is None, extension.problem
    assert "cpu" in extension.devices
    assert extension.info["simd"] in extension.info["simd_levels"]


def test_auto_takes_native_on_the_cpu():
    assert backends.choose("lif", "cpu", torch.float32, "auto") == "native"


def test_auto_takes_the_reference_where_no_kernel_serves():
    assert backends.choose("lif", "cpu", torch.float64, "auto") == "reference"
    assert tk.lif(torch.randn(3, 2, dtype=torch.float64))[0].dtype == torch.float64


@pytest.mark.slow
def test_cuda_only_backend_on_the_cpu_is_one_clear_error():
    script = "import torch, tmkt_kernels as tk; tk.lif(torch.zeros(2, 3), backend='triton')"
    result = python(script)
    assert result.returncode == 1
    reason = "Triton runs on CUDA devices, the tensor is on 'cpu'"
    if importlib.util.find_spec("triton") is None:
        reason = "the package triton is not installed"
    assert f"backend 'triton' cannot serve this call: {reason}" in result.stderr


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_the_library_native_says_why(monkeypatch, device):
    monkeypatch.setattr(backends, "extension", type(extension)(frozenset(), "no C++ compiler was found; do this", {}))
    monkeypatch.setitem(backends.PROBLEMS, ("native", device), backends.native_problem(device))
    with pytest.raises(RuntimeError, match="lif: backend 'native' cannot serve this call: no C\\+\\+ compiler"):
        backends.choose("lif", device, torch.float32, "native")
    assert backends.choose("lif", "cpu", torch.float64, "auto") == "reference"


# name: machine code, PTX, CUDA of the library; the GPU's capability and the driver's CUDA; part of the reason
CUDA_TABLE = {
    "machine code of its own": ([80, 86, 90], [80, 90], (13, 0), (9, 0), (13, 0), None),
    "machine code of an earlier minor version": ([80, 86], [], (13, 0), (8, 7), (13, 0), None),
    "machine code of a later minor version only": (
        [86, 90],
        [],
        (13, 0),
        (8, 0),
        (13, 0),
        "for sm_86, sm_90, .* sm_80",
    ),
    "machine code of another major version only": ([80, 90], [], (13, 0), (10, 0), (13, 0), "TMKT_CUDA_ARCHS=100"),
    "older than all": ([80, 86, 90, 120], [80, 120], (13, 0), (7, 5), (13, 0), "the GPU is sm_75"),
    "by PTX of the oldest": ([80, 90, 100, 120], [80, 120], (13, 0), (11, 0), (13, 0), None),
    "by PTX of the newest": ([80, 90], [80, 90], (13, 0), (12, 1), (13, 1), None),
    "PTX of a later one only": ([120], [120], (13, 0), (11, 0), (13, 0), "the GPU is sm_110"),
    "driver of an earlier major version": ([90], [90], (13, 0), (9, 0), (12, 8), "driver serves CUDA 12.8 at most"),
    "driver of an earlier minor version": ([90], [90], (13, 1), (9, 0), (13, 0), None),
    "PTX, driver of an earlier minor version": (
        [80],
        [80],
        (13, 1),
        (9, 0),
        (13, 0),
        "only PTX for sm_90, .* CUDA 13.0",
    ),
    "driver of a later major version": ([80], [80], (12, 8), (9, 0), (13, 0), None),
    "no driver": ([90], [90], (13, 0), (9, 0), None, "no NVIDIA driver"),
}


@pytest.mark.parametrize("name", CUDA_TABLE)
def test_which_gpus_the_library_serves(name):
    *case, expected = CUDA_TABLE[name]
    found = backends.cuda_problem(*case)
    if expected is None:
        assert found is None
    else:
        assert re.search(expected, found)


def test_a_gpu_that_native_cannot_serve_goes_to_the_next_backend(monkeypatch):
    monkeypatch.setitem(backends.PROBLEMS, ("native", "cuda"), None)
    monkeypatch.setitem(backends.PROBLEMS, ("triton", "cuda"), "not here either")
    gpus = {0: None, 1: "the GPU is sm_75"}
    monkeypatch.setattr(backends, "remembered_gpu_problem", gpus.get)
    assert backends.choose("lif", "cuda:0", torch.float32, "auto") == "native"
    assert backends.choose("lif", "cuda:1", torch.float32, "auto") == "reference"
    with pytest.raises(RuntimeError, match="lif: backend 'native' cannot serve this call: the GPU is sm_75"):
        backends.choose("lif", torch.device("cuda", 1), torch.float32, "native")


@pytest.mark.cuda
def test_native_serves_this_gpu():
    assert backends.problem("native", "cuda", torch.float32) is None


@pytest.mark.cuda
def test_import_leaves_cuda_alone_so_that_processes_can_fork():
    script = """
import os, torch, tmkt_kernels as tk
assert not torch.cuda.is_initialized()
child = os.fork()
tk.lif(torch.zeros(2, 3, device="cuda"), backend="native")
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    result = python(script)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_unknown_simd_level_is_an_error():
    result = python("import tmkt_kernels", TMKT_SIMD="sse9")
    assert result.returncode == 1
    assert "TMKT_SIMD: expected one of 'baseline'" in result.stderr


@pytest.mark.slow
def test_report():
    result = subprocess.run(
        [sys.executable, "-m", "tmkt_kernels"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin", "PYTHONPATH": PATH},
    )
    for word in (
        "torch",
        torch.__version__,
        "triton",
        "lif",
        "mixup",
        "native, reference",
        extension.info["simd"],
    ):
        assert word in result.stdout
    assert result.stdout.count("set TRITON_INTERPRET=1") <= 1  # once for all operators
    machine = json.loads(
        subprocess.run(
            [sys.executable, "-m", "tmkt_kernels", "--json"],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "/usr/bin", "PYTHONPATH": PATH},
        ).stdout
    )
    assert machine["torch"] == torch.__version__
