"""The sources to measure, each read and parsed once, and the functions in them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from . import cpp

PACKAGES = ("tmkt_kernels", "tmkt", "benchmarks")
TESTS = "tests"
PLACES = (*PACKAGES, "csrc", "docs", "examples", TESTS)
CPP_SUFFIXES = (".h", ".cpp", ".cu", ".cuh")


@dataclass(frozen=True)
class Function:
    """A function of Python or C++; `body` is its node, or its tokens."""

    path: str
    name: str  # with its classes, LIF.forward
    line: int
    lines: int
    parameters: int
    body: ast.FunctionDef | ast.AsyncFunctionDef | list[cpp.Token] = field(repr=False, compare=False)
    launched: bool = False  # a CUDA kernel

    @property
    def short_name(self) -> str:
        return self.name.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"


@dataclass(frozen=True)
class Source:
    path: str  # from the root
    text: str

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def syntax(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def functions(self) -> list[Function]:
        if self.is_python:
            return list(_python_functions(self.path, self.syntax, ""))
        return [
            Function(self.path, f.name, f.line, f.lines, f.parameters, f.body, "__global__" in f.head)
            for f in cpp.functions(self.text)
        ]


class Tree:
    """The sources under a root. Missing places are empty."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def sources(self) -> dict[str, Source]:
        found = {}
        for place in PLACES:
            for path in sorted((self.root / place).rglob("*")):
                if path.suffix in (".py", *CPP_SUFFIXES):
                    name = path.relative_to(self.root).as_posix()
                    found[name] = Source(name, path.read_text(encoding="utf-8"))
        return found

    def of(self, *places: str) -> list[Source]:
        return [s for s in self.sources.values() if s.path.partition("/")[0] in places]

    @property
    def product(self) -> list[Source]:
        """Sources other than tests, examples and pages."""
        return self.of(*PACKAGES, "csrc")

    def functions(self, *places: str) -> list[Function]:
        return [function for source in self.of(*places) for function in source.functions]


def _python_functions(path: str, node: ast.AST, prefix: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (child.end_lineno or child.lineno) - child.lineno + 1
            parameters = _count_parameters(child, isinstance(node, ast.ClassDef))
            yield Function(path, prefix + child.name, child.lineno, lines, parameters, child)
        inside = prefix
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inside = f"{prefix}{child.name}."
        yield from _python_functions(path, child, inside)


def _count_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, in_class: bool) -> int:
    """Count parameters without self and cls; *args and **kwargs are one each."""
    a = node.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg]
    return len(names) - (in_class and names[:1] in (["self"], ["cls"]))


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Return the last names of the decorators: {"jit"} for @triton.jit(...)."""
    return {re.sub(r"\(.*", "", ast.unparse(d), flags=re.DOTALL).rpartition(".")[2] for d in node.decorator_list}


def called_name(call: ast.Call) -> str:
    """Return the last name of the called expression: `charge` for NEURON.charge(...); "" if it has none."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))
