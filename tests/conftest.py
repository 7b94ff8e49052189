"""Test set-up: uninitialised memory is poisoned, Triton runs in its interpreter where there is no GPU."""

import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections.abc import Generator
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

sys.path.append(str(Path(__file__).parent))  # for the modules in it, which several test files use

# A shell has what it starts in the background ignore Ctrl-C, and its children too; tests are about those who hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FEATURES = {
    "cuda": "no GPU",
    "gpu_code": r"GPU code is tested where|built without CUDA|needs g\+\+|cuobjdump|c\+\+filt",
    "rivals": r"spikingjelly|snntorch|norse|sinabs|\bnir\b|tonic|expelliarmus|mlxtend",
    "data": "no shared data|in the shared data|no real recordings",
    "triton": "Triton is not installed|import 'triton",
}
"""What a machine may lack: a pattern of the reasons for which its tests are skipped."""

REQUIRED = tuple(filter(None, os.environ.get("TMKT_REQUIRE", "").split(",")))
if unknown := sorted(set(REQUIRED) - set(FEATURES)):
    raise pytest.UsageError(f"TMKT_REQUIRE: expected some of {', '.join(FEATURES)}; got {', '.join(unknown)}")


def fail_if_required(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A test that skips for want of a feature in TMKT_REQUIRE, such as cuda,rivals,data, fails."""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        for feature in REQUIRED:
            if re.search(FEATURES[feature], reason):
                report.outcome = "failed"
                report.longrepr = f"TMKT_REQUIRE={feature}, but this was skipped: {reason}"
                return


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_required(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_required(report)
    return report


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cuda: needs a GPU")
    config.addinivalue_line("markers", "slow: takes more than a second, or interprets Triton; not in make test-fast")
    config.addinivalue_line("markers", "gpu_code: compiles kernels for GPUs, which takes minutes; needs no GPU")
    # It is to change what ATen computes. Inductor of torch 2.14 takes it too, and then writes code that is no C++.
    if os.environ.get("ATEN_CPU_CAPABILITY") == "default":
        import torch._inductor.config as inductor_config  # imports Triton, so not before it is told to interpret

        inductor_config.cpp.simdlen = 256


# Files of minutes, first: started last, they would keep one process busy while the others have nothing left to do.
LONG = (
    *("test_triton_aot.py", "test_cuda_emulated.py", "test_simd_levels.py", "test_deploy.py"),
    *("test_training_signals.py", "test_distributed.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
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
