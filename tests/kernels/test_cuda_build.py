"""The CUDA kernels as they were compiled, without a GPU: what the installed library says of its own machine code."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tmkt_kernels._extension import LIBRARY, extension

MOST_REGISTERS = 168  # 384 threads then share a multiprocessor of 65,536, at the least


def cuobjdump() -> str | None:
    """The CUDA toolkit's, or the one that Triton ships."""
    triton = find_spec("triton")
    shipped = Path(triton.submodule_search_locations[0], "backends/nvidia/bin/cuobjdump") if triton else None
    return shutil.which("cuobjdump") or (str(shipped) if shipped and shipped.exists() else None)


@pytest.fixture(scope="module")
def usage() -> list[tuple[str, str, dict[str, int]]]:
    """(architecture, mangled name, resources) of each kernel."""
    tool = cuobjdump()
    if not extension.info.get("cuda_archs"):
        pytest.skip("the installed library was built without CUDA")
    if tool is None:
        pytest.skip("cuobjdump was found neither on the PATH nor in Triton")
    dump = subprocess.run([tool, "-res-usage", LIBRARY], capture_output=True, text=True, check=True).stdout
    rows, arch = [], ""
    for line in dump.splitlines():
        if match := re.search(r"arch = (sm_\d+)", line):
            arch = match[1]
        if match := re.search(r"Function (\w+):", line):
            name = match[1]
        if "REG:" in line:
            rows.append((arch, name, {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}))
    return rows


def test_every_operator_is_there_for_every_architecture(usage):
    for arch in {arch for arch, _, _ in usage}:
        names = " ".join(name for of, name, _ in usage if of == arch)
        for kernel in ("forward_kernel", "backward_kernel", "moments_kernel", "gradients_kernel", "CellPack", "mixup"):
            assert kernel in names, f"{arch} lacks {kernel}"


def test_no_kernel_spills(usage):
    assert len(usage) > 50
    spilled = [(arch, name) for arch, name, use in usage if use["STACK"] or use["LOCAL"]]
    assert not spilled


def test_registers_leave_room_for_384_threads(usage):
    assert max(use["REG"] for _, _, use in usage) <= MOST_REGISTERS
