"""Backend choice: named, explained, never silent."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch

import tmkt_kernels as tk
from tmkt_kernels import _dispatch
from tmkt_kernels._extension import extension

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
    assert _dispatch.choose("lif", "cpu", torch.float32, "auto") == "native"


def test_auto_takes_the_reference_where_no_kernel_serves():
    assert _dispatch.choose("lif", "cpu", torch.float64, "auto") == "reference"
    assert tk.lif(torch.randn(3, 2, dtype=torch.float64))[0].dtype == torch.float64


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
    monkeypatch.setattr(_dispatch, "extension", type(extension)(frozenset(), "no C++ compiler was found; do this", {}))
    monkeypatch.setitem(_dispatch._PROBLEMS, ("native", device), _dispatch._native_problem(device))
    with pytest.raises(RuntimeError, match="lif: backend 'native' cannot serve this call: no C\\+\\+ compiler"):
        _dispatch.choose("lif", device, torch.float32, "native")
    assert _dispatch.choose("lif", "cpu", torch.float64, "auto") == "reference"


def test_unknown_simd_level_is_an_error():
    result = python("import tmkt_kernels", TMKT_SIMD="sse9")
    assert result.returncode == 1
    assert "TMKT_SIMD: expected one of 'baseline'" in result.stderr


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
        "native",
        "chosen by auto",
        extension.info["simd"],
    ):
        assert word in result.stdout
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
