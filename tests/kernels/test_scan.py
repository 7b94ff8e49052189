"""The C++ loop over time with a neuron of the test's own (tests/csrc/scan.cpp), at each SIMD level."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tmkt_kernels.extension import extension

ROOT = Path(__file__).parents[2]
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}


@pytest.mark.slow
@pytest.mark.parametrize("level", FLAGS)
def test_a_neuron_of_two_states_runs_through_the_shared_loop(level, tmp_path):
    compiler = os.environ.get("CXX") or shutil.which("g++")
    if not (ROOT / "csrc").exists() or not compiler:
        pytest.skip("needs the source tree and a C++ compiler")
    levels = list(FLAGS)
    if level not in extension.info["simd_levels"] or levels.index(level) > levels.index(extension.info["simd"]):
        pytest.skip(f"this CPU or the installed library lacks {level}")
    program = tmp_path / "scan"
    source = ROOT / "tests/csrc/scan.cpp"
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", f"-DTMKT_SIMD={level}", f"-I{ROOT / 'csrc'}", *FLAGS[level]]
    subprocess.run([compiler, *flags, source, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("scan: a neuron of two states")
