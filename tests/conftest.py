"""Test set-up: uninitialised memory is poisoned, Triton runs in its interpreter where there is no GPU."""

import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
import torch

# Triton reads this when a kernel is decorated, so it must stand before the first import of tmkt_kernels.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Inductor of torch 2.14 takes code that it cached under another ATEN_CPU_CAPABILITY, whose tensors have other strides:
# seen to crash, and to give infinite gradients.
_capability = os.environ.get("ATEN_CPU_CAPABILITY", "native")
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"tmkt-inductor-{os.getuid()}-{_capability}")
)

sys.path.append(str(Path(__file__).parent))  # for recorded.py, which tests of several folders use

# A shell has what it starts in the background ignore Ctrl-C, and its children too; tests are about those who hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REQUIRE_CUDA = os.environ.get("TMKT_REQUIRE_CUDA") == "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cuda: needs a GPU; skipped without one, a failure with TMKT_REQUIRE_CUDA=1")
    config.addinivalue_line("markers", "gpu_code: compiles kernels for GPUs, which takes minutes; needs no GPU")
    # It is to change what ATen computes. Inductor of torch 2.14 takes it too, and then writes code that is no C++.
    if os.environ.get("ATEN_CPU_CAPABILITY") == "default":
        import torch._inductor.config as inductor_config  # imports Triton, so not before it is told to interpret

        inductor_config.cpp.simdlen = 256


# Files of minutes, first: started last, they would keep one process busy while the others have nothing left to do.
LONG = ("test_triton_aot.py", "test_cuda_emulated.py", "test_signals.py", "test_deploy.py", "test_distributed.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        if REQUIRE_CUDA:
            pytest.fail("TMKT_REQUIRE_CUDA=1, but torch sees no GPU", pytrace=False)
        pytest.skip("no GPU")
    if item.get_closest_marker("gpu_code") and not has_cuda_kernels():
        pytest.skip("GPU code is tested where the library has CUDA kernels: TMKT_CUDA=1 make test")


def has_cuda_kernels() -> bool:
    from tmkt_kernels.extension import extension

    return extension.problem is None and bool(extension.info["cuda"])


@pytest.fixture(autouse=True)
def poison_uninitialised_memory():
    """torch.empty, in Python and in C++, gives NaN (or the largest integer): what a kernel leaves out shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def processes() -> BaseContext:
    """Makes processes that start at once: forked from a server that has the trainer imported and, unlike the process of
    the tests, no threads yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tmkt.training.trainer"])  # where that is not installed, nothing is imported ahead
    return context


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings and images (TMKT_DATA); the test is skipped where it is not there."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("TMKT_DATA", root / "../shared/data"))
    if not (folder / "N-MNIST-small").is_dir():
        pytest.skip("no shared data: set TMKT_DATA to the folder that holds N-MNIST-small and MNIST")
    return folder.resolve()
