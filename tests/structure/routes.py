"""The files that one call leads through, in Python as it runs and in C++ by its includes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Any

from . import cpp
from .sources import Tree

VOCABULARY = "csrc/common/"  # vectors, checks and numbers, which a reader knows after the first file
CPU_FORWARD = ("csrc/lif/lif_cpu.cpp", "csrc/lif/lif_simd.cpp")


def files_entered(call: Callable[[], Any], root: Path) -> list[str]:
    """Python files under `root` that `call()` enters a function of, in the order of the first time.

    Modules that are imported on the way are not entered by that.
    """
    found: dict[str, None] = {}

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and Path(code.co_filename).is_relative_to(root):
            found[Path(code.co_filename).relative_to(root).as_posix()] = None

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(before)
    return list(found)


def lif_files(backend: str) -> list[str] | str:
    """Files of tmkt_kernels that the call of a LIF layer enters, from the layer to the kernel, for an x on the CPU that
    needs a gradient; or the reason why the backend cannot serve it. Triton serves the CPU in its interpreter.

    The second call counts, because the first one fills caches.
    """
    os.environ.setdefault("TRITON_INTERPRET", "1")
    import torch

    import tmkt_kernels

    layer = tmkt_kernels.nn.LIF(backend=backend)
    x = torch.ones(2, 3, requires_grad=True)
    try:
        layer(x)
    except RuntimeError as problem:
        if "cannot serve" not in str(problem):
            raise
        return str(problem)
    package = Path(tmkt_kernels.__file__).parent
    return [f"{package.name}/{path}" for path in files_entered(lambda: layer(x), package)]


def included(tree: Tree, *starts: str) -> list[str]:
    """The sources at `starts` and all that they include, but the vocabulary; in the order in which they are met."""
    found: dict[str, None] = {}

    def follow(path: str) -> None:
        if path in found or path.startswith(VOCABULARY) or path not in tree.sources:
            return
        found[path] = None
        for name in cpp.includes(tree.sources[path].text):
            follow(str(PurePosixPath("csrc") / name))

    for start in starts:
        follow(start)
    return list(found)
