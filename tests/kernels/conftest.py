"""The backends and devices on which operator tests run; those that this machine lacks are skipped, with the reason.

Also readers of recorded bytes.
"""

import ctypes
import importlib.util

import pytest
import recorded

from tmkt_kernels import events
from tmkt_kernels.backends import TRITON_INTERPRETED
from tmkt_kernels.extension import LIBRARY, extension

no_interpreter = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not TRITON_INTERPRETED,
    reason="Triton is not installed, or runs on a GPU here",
)
# The C++ loops at the SIMD level of this process; test_simd_levels.py starts a process for each lower level.
SIMD = extension.info.get("simd", "missing")
TARGETS = [
    pytest.param(("native", "cpu"), id=f"native-{SIMD}"),
    pytest.param(("native", "cuda"), id="native-cuda", marks=pytest.mark.cuda),
    pytest.param(("triton", "cuda"), id="triton-cuda", marks=pytest.mark.cuda),
]
SLOW_TARGETS = [
    pytest.param(("reference", "cpu"), id="reference"),
    pytest.param(("triton", "cpu"), id="triton-interpreted", marks=[no_interpreter, pytest.mark.slow]),
]
# The process that test_cuda_emulated.py starts: the CUDA kernels serve the CPU.
if extension.problem is None and hasattr(ctypes.CDLL(str(LIBRARY)), "tmkt_emulated"):
    TARGETS, SLOW_TARGETS = [pytest.param(("native", "cpu"), id="cuda-emulated")], []


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each (backend, device) that is fast enough for tests of sizes."""
    return request.param


@pytest.fixture(params=[*TARGETS, *SLOW_TARGETS[1:]])
def kernel_target(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each (backend, device) except the reference, for tests of the registration with torch."""
    return request.param


@pytest.fixture(params=TARGETS + SLOW_TARGETS)
def every_target(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Each (backend, device), for the tables of cases in tmkt_kernels/testing.py and for the meaning of inputs."""
    return request.param


@pytest.fixture
def read(tmp_path):
    """Returns a function that reads the bytes of a file with this suffix."""

    def read(suffix, content):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        return getattr(events, f"read_{suffix[1:]}")(path)

    return read


@pytest.fixture
def read_as(read):
    """Returns a function that reads bytes behind the header of the format."""
    return lambda name, body: read(recorded.SUFFIXES.get(name, ".aedat"), recorded.HEADERS[name] + body)
