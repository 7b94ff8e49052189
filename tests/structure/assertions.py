"""Assertions of tests that may never run."""

import ast
from collections.abc import Iterable, Iterator

from .sources import TESTS, Tree, called_name


def conditional_assertions(tree: Tree) -> list[str]:
    """Return each `if` in a test function that asserts in only one of its branches, and each `except` that asserts.

    A test that never takes this branch passes silently.
    """
    python = [source for source in tree.of(TESTS) if source.is_python]
    found = {(s.path, node.lineno) for s in python for node in _in_functions(s.syntax) if _may_skip_assertions(node)}
    return [f"{path}:{line}" for path, line in sorted(found)]


def _in_functions(syntax: ast.Module) -> Iterator[ast.If | ast.ExceptHandler]:
    for function in ast.walk(syntax):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from (node for node in ast.walk(function) if isinstance(node, (ast.If, ast.ExceptHandler)))


def _may_skip_assertions(node: ast.If | ast.ExceptHandler) -> bool:
    return _assert(node.body) != (isinstance(node, ast.If) and _assert(node.orelse))


def _assert(statements: Iterable[ast.stmt]) -> bool:
    """Whether they assert, by `assert`, `pytest.raises` or an `assert_...` of PyTorch's, NumPy's or ours."""
    nodes = [node for statement in statements for node in ast.walk(statement)]
    called = [called_name(node) for node in nodes if isinstance(node, ast.Call)]
    return any(isinstance(node, ast.Assert) for node in nodes) or any(
        name == "raises" or name.startswith("assert_") for name in called
    )
