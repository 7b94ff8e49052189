"""The number of times that the recurrence is written: loops over time per device, and adjoints of a neuron's step."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch

from . import cpp
from .sources import Function, Source, Tree, called_name

# The functions of a neuron's time step and of the step's adjoint, by every name that they have on a device. A function
# that calls one of them in a loop runs the recurrence.
ADJOINT_NAMES = frozenset({"adjoint", "lif_adjoint", "lif_step_adjoint", "charge_adjoint", "lif_charge_adjoint"})
STEP_NAMES = ADJOINT_NAMES | {
    *("charge", "lif_charge", "step", "lif_step"),
    *("parameter_gradients", "lif_parameter_gradients"),
}
# The names of ds/dh, the surrogate's derivative, by which an adjoint multiplies.
DERIVATIVES = frozenset({"ds_dh", "derivative", "surrogate_derivative"})
COMPILED = ("cpu", "cuda", "triton")
DEVICES = (*COMPILED, "reference")


def device_of(path: str) -> str | None:
    """Return the device of a file; headers that both compilers read count for the CPU."""
    if path.startswith("csrc/"):
        return "cuda" if fnmatch(path, "*.cu") or fnmatch(path, "*.cuh") else "cpu"
    if path.startswith("tmkt_kernels/"):
        return "triton" if "triton" in path.rpartition("/")[2] else "reference"
    return None


def loops(tree: Tree, device: str) -> list[list[Function]]:
    """Return functions that call a neuron's step or adjoint in a loop, directly or through a function without such a
    loop.

    Functions of which one calls the other, or that one function calls, are parts of one loop, because backward
    recomputes a chunk and then goes back through it.
    """
    functions = [f for s in tree.product if device_of(s.path) == device for f in s.functions]
    calls = {f: list(_calls(f)) for f in functions}
    names = set(STEP_NAMES)
    while True:
        found = [f for f in functions if any(name in names and looped for name, looped in calls[f])]
        through = {f.short_name for f in functions if any(name in names for name, _ in calls[f]) and f not in found}
        if through <= names:
            return _joined(found, [{name for name, _ in calls[f]} | {f.short_name} for f in functions])
        names |= through


def _joined(found: list[Function], together: list[set[str]]) -> list[list[Function]]:
    """Group `found`: functions with names in the same set of `together` are in one group."""
    groups: list[list[Function]] = []
    for function in found:
        with_it = [
            g for g in groups if any({f.short_name, function.short_name} <= names for f in g for names in together)
        ]
        groups = [g for g in groups if g not in with_it] + [[*(f for g in with_it for f in g), function]]
    return groups


def _calls(function: Function) -> Iterator[tuple[str, bool]]:
    if isinstance(function.body, list):
        yield from cpp.calls(function.body)
    else:
        for child in ast.iter_child_nodes(function.body):
            yield from _python_calls(child, False)


def _python_calls(node: ast.AST, looped: bool) -> Iterator[tuple[str, bool]]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return  # a separate function
    if isinstance(node, ast.Call):
        yield called_name(node), looped
    repeats = isinstance(node, (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp))
    for child in ast.iter_child_nodes(node):
        once = isinstance(node, ast.For) and child is node.iter
        yield from _python_calls(child, looped or (repeats and not once))


def adjoints(tree: Tree) -> list[str]:
    """Files that define an adjoint of a step: a function of that name, or a product with the surrogate's derivative."""
    return [s.path for s in tree.product if device_of(s.path) and _defines_adjoint(s)]


def _defines_adjoint(source: Source) -> bool:
    if any(f.short_name in ADJOINT_NAMES for f in source.functions):
        return True
    if source.is_python:
        products = (n for n in ast.walk(source.syntax) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Mult))
        return any(_is_derivative(side) for product in products for side in (product.left, product.right))
    words = [token.text for f in source.functions if isinstance(f.body, list) for token in f.body]
    return any(words[i : i + 2] == ["*", "ds_dh"] and _is_value(words[i - 1]) for i in range(1, len(words)))


def _is_derivative(node: ast.expr) -> bool:
    name = called_name(node) if isinstance(node, ast.Call) else getattr(node, "id", "")
    return name in DERIVATIVES


def _is_value(word: str) -> bool:
    """Whether the word is a value, and not the type of a pointer."""
    return word in ")]" or (word.isidentifier() and word not in ("float", "double", "Floats", "T", "V"))
