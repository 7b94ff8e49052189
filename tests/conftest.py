"""Test set-up: uninitialised memory is poisoned, and Triton runs in its interpreter if there is no GPU."""

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

# Triton reads this when a kernel is decorated, so that it must come before the first import of tmkt_kernels.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Inductor of torch 2.14 uses code that it cached under another ATEN_CPU_CAPABILITY, with other strides of tensors. It
# crashed, and gave infinite gradients.
_capability = os.environ.get("ATEN_CPU_CAPABILITY", "native")
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"tmkt-inductor-{os.getuid()}-{_capability}")
)

sys.path.append(str(Path(__file__).parent))  # for its modules, which several test files use

# A shell makes background processes and their children ignore Ctrl-C, but tests need processes that react to it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FEATURES = {
    "cuda": "no GPU",
    "gpu_code": r"GPU code is tested where|built without CUDA|needs g\+\+|cuobjdump|c\+\+filt",
    "rivals": r"spikingjelly|snntorch|norse|sinabs|\bnir\b|tonic|expelliarmus|mlxtend",
    "data": "no shared data|in the shared data|no real recordings",
    "triton": "Triton is not installed|import 'triton",
}
"""Features that a machine may lack, each with a pattern of the skip reasons of its tests."""

REQUIRED = tuple(filter(None, os.environ.get("TMKT_REQUIRE", "").split(",")))
if unknown := sorted(set(REQUIRED) - set(FEATURES)):
    raise pytest.UsageError(f"TMKT_REQUIRE: expected some of {', '.join(FEATURES)}; got {', '.join(unknown)}")


def fail_if_required(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Fail a test that skips because a feature in TMKT_REQUIRE is missing, for example cuda,rivals,data."""
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
    # It should only change ATen's computation, but Inductor of torch 2.14 reads it too, and then writes invalid C++.
    if os.environ.get("ATEN_CPU_CAPABILITY") == "default":
        import torch._inductor.config as inductor_config  # imports Triton, so only after the choice of the interpreter

        inductor_config.cpp.simdlen = 256


# Files that take minutes, first, because one started last would keep one process busy while the others are idle.
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
    """torch.empty, in Python and C++, gives NaN (or the largest integer), so that an output left unwritten shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def processes() -> BaseContext:
    """Makes processes that start at once. They are forked from a server that has imported the trainer and, unlike the
    process of the tests, has no threads yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tmkt.training.trainer"])  # without the trainer, nothing is imported in advance
    return context


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings and images (TMKT_DATA); without it the test is skipped."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("TMKT_DATA", root / "../shared/data"))
    if not (folder / "N-MNIST-small").is_dir():
        pytest.skip("no shared data: set TMKT_DATA to the folder that holds N-MNIST-small and MNIST")
    return folder.resolve()
