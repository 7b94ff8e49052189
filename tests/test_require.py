"""TMKT_REQUIRE makes skips because of a missing feature fail, so that CI cannot pass without testing it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ON_A_GPU = "tests/kernels/test_cuda.py"


def run(features: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of one file that all need a GPU, in a process that sees none."""
    environment = os.environ | {"TMKT_REQUIRE": features, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ON_A_GPU, "-k", "compiles_once"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("features, status", [("triton", 0), ("triton,cuda", 1)])
def test_a_skip_is_a_failure_where_its_feature_is_required(features, status):
    done = run(features)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("TMKT_REQUIRE=cuda, but this was skipped: Skipped: no GPU" in done.stdout) is bool(status)


def test_an_unknown_feature_is_named():
    done = run("rival")
    assert done.returncode == 4
    assert "TMKT_REQUIRE: expected some of cuda, gpu_code, rivals, data, triton; got rival" in done.stdout + done.stderr
