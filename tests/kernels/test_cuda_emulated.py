"""The operator tests on the target cuda-emulated: our CUDA kernels compiled for the CPU (tests/emulator/README.md).

The emulated library implements the same operators for the same device as the installed one, so that the tests need
separate processes.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EMULATOR = HERE.parent / "emulator"
COMPILER = os.environ.get("CXX", "g++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.gpu_code,
    pytest.mark.timeout(1800),  # on a slow machine the build alone takes seven minutes
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="the sources are not here: this is not a source tree"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the emulator switches fibers on x86-64 only"),
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} was not found: the emulator needs g++"),
    pytest.mark.skipif(os.environ.get("TMKT_LIBRARY") is not None, reason="this process has another library already"),
]

# The tests of kernels, without those of torch.compile and opcheck on schemas, which run no kernel.
CASES = "(cuda-emulated and not opcheck and not compiles_into and not streamed) or any_size or every_backend"


@pytest.fixture(scope="session")
def environment():
    """The environment of a process whose operators are the emulated kernels."""
    built = subprocess.run(
        [sys.executable, EMULATOR / "build.py", "operators"], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return os.environ | {"TMKT_LIBRARY": built.stdout.strip(), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("name", ["lif", "bn_lif", "mixup", "camera", "edges", "arguments"])
def test_operator(name, environment):
    files = sorted(HERE.glob(f"test_{name}*.py"))
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", CASES, *files]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert "[cuda-emulated" in done.stdout


def test_any_order_of_threads_gives_the_same_bits(environment):
    digests = set()
    for seed in "123":
        command = [sys.executable, EMULATOR / "stress.py", "--cases", "30"]
        done = subprocess.run(
            command, env=environment | {"TMKT_EMULATOR_SEED": seed}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        digests.add(done.stdout.splitlines()[-1])
    assert len(digests) == 1, digests
