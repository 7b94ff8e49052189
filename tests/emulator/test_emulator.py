"""The emulator itself: it reports each planted defect in defects.cu, and nothing in the same kernel without it."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
COMPILER = os.environ.get("CXX", "g++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.gpu_code,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the emulator switches fibers on x86-64 only"),
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} was not found: the emulator needs g++"),
]

REPORTED = {
    "divergent-barrier": r"wait at different places: .*__syncthreads at .*defects.cu:\d+, .*__syncthreads at",
    "past-the-end": "defects.cu:[0-9]+: index 64 is out of bounds of 'float .64.'",
    "no-dynamic": "dynamic shared memory is used, the launch asked for none",
    "lane-not-in-mask": "block 0, thread 31: __shfl_xor_sync at .*: the mask does not name the calling lane",
    "lane-stays-away": "deadlock: 32 threads wait in __shfl_xor_sync .* 32 threads wait in __syncthreads",
    "two-masks": "lanes of a warp name different masks, (ffffffff and fffffffe|fffffffe and ffffffff)",
    "misaligned": "defects.cu:[0-9]+: misaligned address: 'struct float4' needs 16 bytes",
    "null": "illegal memory access: null pointer to 'const float'",
    "zero": "integer division by zero",
    "assert": "device-side assert triggered: condition",
    "cluster-of-9": "cluster misconfiguration",
    "grid-of-no-cluster": "invalid configuration argument",
    "no-blocks": "invalid configuration argument",
    "too-many-blocks": "invalid configuration argument",
    "no-threads": "invalid configuration argument",
    "1025-threads": "invalid configuration argument",
    "dynamic-100": "invalid argument",
    "dynamic-228-granted": "invalid argument",
}
POISONED = ["missing-barrier", "uninitialised", "cluster-exited"]  # memory not written yet, or no longer valid, is NaN
SOUND = {
    "barrier": [*range(1, 64), 0],
    "one-barrier": [1] * 64,
    "exited-threads": [1] * 32 + [0] * 32,
    "inside": [1] * 64,
    "inside-dynamic": [1] * 64,
    "initialised": [1] * 64,
    "shuffle": [2 * (i % 32 // 2 * 2) + 1 for i in range(64)],
    "shuffle-of-some": [2 * (i % 32 // 2 * 2) + 1 if i % 32 < 16 else i % 32 for i in range(64)],
    "cluster": [3, 0, 3] + [0] * 61,
    "cluster-end": [2, 1, 4, 3] + [0] * 60,
    "cluster-of-16": [0] * 64,
    "aligned": [0] * 64,
    "1024-threads": [0] * 64,
    "dynamic-48": [0] * 64,
    "dynamic-100-granted": [0] * 64,
}


@pytest.fixture(scope="session")
def programs() -> dict[str, str]:
    """Kind of build -> path of the program of defects.cu."""

    def build(kind: str) -> str:
        command = [sys.executable, HERE / "build.py", "defects", kind]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return {kind: build(kind) for kind in ("plain", "address", "thread")}


def run(program: str, case: str, seed: int = 1) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TMKT_EMULATOR_SEED": str(seed), "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run([program, case], env=environment, capture_output=True, text=True, check=False, timeout=120)


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[str, list[float]]:
    """Return the result of the launch, and the first 64 numbers that it wrote."""
    assert done.returncode == 0, done.stderr
    message, numbers = done.stdout.split("\n", 1)
    return message, [float(number) for number in numbers.split()]


@pytest.mark.parametrize("case", REPORTED)
def test_a_defect_is_the_error_of_the_launch(case, programs):
    message, _ = outcome(run(programs["plain"], case))
    assert re.search(REPORTED[case], message), message


@pytest.mark.parametrize("case", POISONED)
def test_what_was_not_written_is_nan(case, programs):
    message, numbers = outcome(run(programs["plain"], case))
    assert message == "no error"
    assert any(number != number for number in numbers)


@pytest.mark.parametrize("kind", ["plain", "address", "thread"])
@pytest.mark.parametrize("case", SOUND)
def test_a_sound_kernel_passes(case, kind, programs):
    for seed in (1, 2, 3):
        done = run(programs[kind], case, seed)
        assert outcome(done) == ("no error", SOUND[case])
        assert done.stderr == ""


@pytest.mark.parametrize("case", ["past-the-end-dynamic", "past-the-end", "misaligned", "null"])
def test_the_address_sanitizer_stops_the_program(case, programs):
    done = run(programs["address"], case)
    assert done.returncode != 0
    assert "defects.cu" in done.stderr


@pytest.mark.parametrize("case", ["missing-barrier", "blocks-race"])
def test_the_thread_sanitizer_reports_a_race(case, programs):
    done = run(programs["thread"], case)
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
