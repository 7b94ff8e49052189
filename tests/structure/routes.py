"""The files on the way of one call, in Python at run time and in C++ by its includes."""

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


def way_of(call: Callable[[], Any], root: Path, kernel: str = "") -> tuple[list[str], list[str]]:
    """Return (the longest chain of Python files under `root` of which one function calls the next, all files entered).

    The chain ends at the first call into the package `kernel`, which runs the kernel. Helpers that a function on the
    chain calls, and that then return, count only as entered. Importing a module does not enter it.
    """
    entered: dict[str, None] = {}
    longest: list[str] = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal longest
        code = frame.f_code
        if event == "call" and code.co_name != "<module>" and Path(code.co_filename).is_relative_to(root):
            entered[Path(code.co_filename).relative_to(root).as_posix()] = None
            chain = _chain(frame, root, kernel)
            if len(chain) >= len(longest):  # the later of two, because helpers come first
                longest = chain

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(before)
    return longest, list(entered)


def _chain(frame: FrameType | None, root: Path, kernel: str) -> list[str]:
    """Return the files of the frames from the outermost to `frame`, each once."""
    found: list[str] = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if kernel in path.parts and not path.is_relative_to(root):
            found = []  # frames further in belong to the kernel
        elif path.is_relative_to(root):
            found.append(path.relative_to(root).as_posix())
        frame = frame.f_back
    return list(dict.fromkeys(reversed(found)))


def way_of_lif(backend: str) -> tuple[list[str], list[str]] | str:
    """Return `way_of` the call of a LIF layer for an x on the CPU that needs a gradient, or the reason why the backend
    cannot serve it. Triton serves the CPU in its interpreter.

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
    chain, entered = way_of(lambda: layer(x), package, "triton")
    return [f"{package.name}/{path}" for path in chain], [f"{package.name}/{path}" for path in entered]


def included(tree: Tree, *starts: str) -> list[str]:
    """Return the sources at `starts` and all their includes, except the vocabulary, in the order of their discovery."""
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


def chain_of_calls(tree: Tree, paths: list[str], start: str, end: str) -> list[str]:
    """Return the files on the shortest chain of calls from function `start` to `end`, among those at `paths`, in order.

    A function that names another one counts as its caller, because C++ also passes functions to macros and templates.

    Raises:
        ValueError: there is no such chain.
    """
    functions = [f for path in paths for f in tree.sources[path].functions]
    chains = [[f] for f in functions if f.short_name == start]
    met = {start}
    while chains:
        following = []
        for chain in chains:
            if chain[-1].short_name == end:
                return list(dict.fromkeys(f.path for f in chain))
            named = {token.text for token in chain[-1].body} - met
            following += [[*chain, f] for f in functions if f.short_name in named]
        met |= {chain[-1].short_name for chain in following}
        chains = following
    raise ValueError(f"{start}: no chain of calls leads to {end}")
