"""The number of visits to each module by a reader who follows the calls of a function.

The reader enters each function once, in the order of calls in the source, and finds a method if annotations give its
class. A stay is a run of functions in one module, and a visit is the beginning of a stay; the return to a caller's
remaining lines is not a visit. If the program chooses at run time, among the entries of a table or the classes behind a
Protocol, the reader takes the first, because a run has only one of them.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from .annotations import Comprehensions, Functions, Types
from .modules import Found, Modules


def visits(modules: Modules, start: Found) -> list[tuple[str, list[str]]]:
    """Return the stays of a walk that begins at the function `start` and stays in its package: module, functions."""
    steps = Walk(modules, start.module.name.partition(".")[0]).into(start, None)
    return [(module, [name for _, name in stay]) for module, stay in groupby(steps, key=lambda step: step[0])]


def count(stays: list[tuple[str, list[str]]]) -> Counter[str]:
    return Counter(module for module, _ in stays)


class Walk:
    def __init__(self, modules: Modules, package: str) -> None:
        self.modules, self.package = modules, package
        self.seen: set[ast.AST] = set()
        definitions = ((module, node) for module in modules for node in module.definitions.values())
        classes = ((module, node) for module, node in definitions if isinstance(node, ast.ClassDef))
        self.classes = [Found(module, node) for module, node in classes if not _is_abstract(node)]

    def into(self, function: Found, owner: Found | None) -> Iterator[tuple[str, str]]:
        """Return (module, name) of the functions entered, in order. `owner`: the class of a method."""
        assert isinstance(function.node, Functions)
        if function.node in self.seen or function.module.name.partition(".")[0] != self.package:
            return
        self.seen.add(function.node)
        yield function.module.name, function.node.name
        types = Types(self.modules, function.module, function.node, owner)
        for node in _in_order(function.node):
            if not isinstance(node, ast.expr) or isinstance(node, Comprehensions):
                types.assign(node)
            else:
                for callee, of in self._entered(node, types):
                    yield from self.into(callee, of)

    def _entered(self, called: ast.expr, types: Types) -> Iterator[tuple[Found, Found | None]]:
        """The functions behind a name, with their classes: itself, a class's constructor, or the entry of a table."""
        owner = types.of(called.value).owner if isinstance(called, ast.Attribute) else None
        if owner and isinstance(called, ast.Attribute):
            one = self._implementation(owner)
            method = self.modules.method(one, called.attr)
            if method:
                yield method, one
            return
        found = types.resolve(called)
        if found is None:
            return
        if isinstance(found.node, Functions):
            holder = types.resolve(called.value) if isinstance(called, ast.Attribute) else None
            yield found, holder if holder and isinstance(holder.node, ast.ClassDef) else None
        elif isinstance(found.node, ast.ClassDef):
            methods = (self.modules.method(found, name) for name in ("__init__", "__post_init__"))
            yield from ((method, found) for method in methods if method)
        elif isinstance(found.node, ast.Dict):
            entry = Types.named(self.modules, found.module, found.node.values[0]) if found.node.values else None
            if entry and isinstance(entry.node, Functions):
                yield entry, None

    def _implementation(self, owner: Found) -> Found:
        """Return the class itself; for a Protocol or an abstract class, the first class that has its methods."""
        if not isinstance(owner.node, ast.ClassDef) or not _is_abstract(owner.node):
            return owner
        methods = [node.name for node in owner.node.body if isinstance(node, Functions)]
        having = (c for c in self.classes if methods and all(self.modules.method(c, name) for name in methods))
        return next(having, owner)


def _is_abstract(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).rpartition(".")[2] in ("Protocol", "ABC") for base in node.bases)


def _in_order(function: ast.AST) -> list[ast.AST]:
    """Return the calls in a function, the names that it passes as arguments, and its assignments, in the source's
    order.

    A call is at the end of its function's name, an assignment after its value, and a comprehension before its element.
    """
    found: list[tuple[tuple[int, int, int], ast.AST]] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            arguments = (*node.args, *(keyword.value for keyword in node.keywords))
            found += [(_end(n, 0), n) for n in (node.func, *arguments) if n is node.func or isinstance(n, ast.Name)]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            found.append((_end(node.value, 1), node))
        elif isinstance(node, ast.For):
            found.append((_end(node.iter, 1), node))
        elif isinstance(node, Comprehensions):
            found.append(((node.lineno, node.col_offset, 0), node))
    return [node for _, node in sorted(found, key=lambda each: each[0])]


def _end(node: ast.expr, after: int) -> tuple[int, int, int]:
    return node.end_lineno or 0, node.end_col_offset or 0, after
