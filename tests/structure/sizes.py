"""Parameters and lines of functions, and lines of files."""

import ast
from collections.abc import Iterator

from .modules import Modules, modules_of
from .sources import PACKAGES, TESTS, Function, Source, Tree, called_name, decorators

MOST_PARAMETERS = 8
MOST_FUNCTION_LINES = 60
MOST_FILE_LINES = 400
PUBLIC = ("tmkt_kernels", "tmkt_kernels.nn", "tmkt_kernels.events", "tmkt")  # their __all__ is the public interface
# Tables of formulas, with a case per surrogate gradient, in which a reader looks one up without reading the rest.
FORMULAS = frozenset({"surrogate_derivative", "surrogate_derivatives"})


def functions_with_many_parameters(tree: Tree) -> tuple[list[Function], list[tuple[Function, str]]]:
    """Return (those above the limit, those that are exempt and why)."""
    reasons = exempt_from_parameters(tree)
    many = [f for f in tree.functions(*PACKAGES, "csrc") if f.parameters > MOST_PARAMETERS]
    held = [f for f in many if (f.path, f.line) not in reasons]
    return held, [(f, reasons[f.path, f.line]) for f in many if (f.path, f.line) in reasons]


def exempt_from_parameters(tree: Tree) -> dict[tuple[str, int], str]:
    """Return (path, line) of each function whose list of parameters is prescribed, and by whom."""
    modules = modules_of(tree)
    exempt = {place: "public" for name in PUBLIC if name in modules.by_name for place in _public(modules, name)}
    launched, boxed = _launched(tree), set(_boxed(tree))
    for function in tree.functions(*PACKAGES, "csrc"):
        place = function.path, function.line
        if function.launched:
            exempt[place] = "kernel"
        elif not isinstance(function.body, list):
            decorated = decorators(function.body)
            if "jit" in decorated and function.name in launched:
                exempt[place] = "kernel"
            elif "register_model" in decorated:
                exempt[place] = "backbone"
        elif function.short_name in boxed:
            exempt[place] = "schema"
    return exempt


def _public(modules: Modules, name: str) -> Iterator[tuple[str, int]]:
    for _, found in modules.exported(name):
        if found.node is None:
            if found.module.name not in PUBLIC:
                yield from _public(modules, found.module.name)
            continue
        node = found
        if isinstance(found.node, ast.ClassDef):
            node = modules.method(found, "__init__") or found
        if isinstance(node.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.module.path, node.node.lineno


def _launched(tree: Tree) -> set[str]:
    """Names of Triton kernels that are launched, kernel[grid](...), or passed to a function that launches them."""
    syntax = [source.syntax for source in tree.of(*PACKAGES) if source.is_python]
    functions = [f.body for f in tree.functions(*PACKAGES) if not isinstance(f.body, list)]
    launchers = {f.name for f in functions if _launches_in(f) & {a.arg for a in f.args.args}}
    calls = (node for module in syntax for node in ast.walk(module) if isinstance(node, ast.Call))
    handed = {a.id for c in calls if called_name(c) in launchers for a in c.args if isinstance(a, ast.Name)}
    return handed.union(*map(_launches_in, syntax))


def _launches_in(node: ast.AST) -> set[str]:
    calls = (n.func.value for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Subscript))
    return {value.id for value in calls if isinstance(value, ast.Name)}


def _boxed(tree: Tree) -> Iterator[str]:
    """Return names of the C++ operators, TORCH_BOX(&name<...>); PyTorch's schema prescribes their parameters."""
    for source in tree.of("csrc"):
        for part in source.text.split("TORCH_BOX(&")[1:]:
            yield part.partition(")")[0].partition("<")[0].rpartition("::")[2]


def long_functions(tree: Tree) -> tuple[list[Function], list[Function]]:
    """Return (those above the limit, those that are exempt as tables of formulas)."""
    long = [f for f in tree.functions(*PACKAGES, "csrc") if f.lines > MOST_FUNCTION_LINES]
    return [f for f in long if f.short_name not in FORMULAS], [f for f in long if f.short_name in FORMULAS]


def long_files(tree: Tree) -> list[Source]:
    return [s for s in tree.of(*PACKAGES, "csrc", TESTS) if s.lines > MOST_FILE_LINES]
