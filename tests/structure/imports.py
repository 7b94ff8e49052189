"""Imports: whether their files exist, circles, arrows that go up, and private names outside their folder."""

import ast
from collections.abc import Iterator
from pathlib import PurePosixPath

from . import cpp
from .modules import Module, Modules, modules_of
from .sources import PACKAGES, TESTS, Tree

Arrows = dict[str, set[str]]  # path -> paths of its imports
# Forbidden imports of each package. The trainer builds on the kernels, and the benchmarks on both.
NEVER = {"tmkt_kernels": ("tmkt", "benchmarks", TESTS), "tmkt": ("benchmarks", TESTS), "benchmarks": (TESTS,)}
OWN_BINARY = "tmkt_kernels._events"  # compiled from csrc/events, not a private module of another package


def arrows(tree: Tree) -> Arrows:
    """Return imports of Python, anywhere in a file, and includes of C++, between files of the packages and of csrc."""
    modules = modules_of(tree)
    found: Arrows = {s.path: set() for s in tree.product}
    for package in PACKAGES:
        for module in modules.within(package):
            targets = {t.path for each in module.imports for t in modules.targets(each)}
            found[module.path] = (targets & found.keys()) - {module.path}
    for source in tree.of("csrc"):
        found[source.path] = {f"csrc/{path}" for path in cpp.includes(source.text)} & found.keys()
    return found


def circles(graph: Arrows) -> list[list[str]]:
    """Return groups of nodes that reach one another, each sorted."""
    reached = {node: _reachable(graph, node) for node in graph}
    groups = {frozenset(n for n in reached[node] if node in reached[n]) for node in graph if node in reached[node]}
    return sorted(sorted(group) for group in groups)


def _reachable(graph: Arrows, node: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[node])
    while waiting:
        at = waiting.pop()
        if at not in seen:
            seen.add(at)
            waiting += graph[at]
    return seen


def room_circles(graph: Arrows) -> list[list[str]]:
    """Return circles in a folder through a sub-folder: an import anywhere below a sub-folder is the sub-folder's."""
    folders = {str(parent) for path in graph for parent in PurePosixPath(path).parents}
    found = []
    for folder in sorted(folders):
        rooms: Arrows = {_room(path, folder): set() for path in graph if _room(path, folder)}
        for path, targets in graph.items():
            for target in targets:
                room, other = _room(path, folder), _room(target, folder)
                if room and other and room != other:
                    rooms[room].add(other)
        found += [circle for circle in circles(rooms) if not graph.keys() >= set(circle)]
    return found


def _room(path: str, folder: str) -> str:
    """Return the file or sub-folder of `folder` that contains `path`; "" if it is elsewhere."""
    prefix = "" if folder == "." else folder + "/"
    return prefix + path.removeprefix(prefix).partition("/")[0] if path.startswith(prefix) else ""


def broken_imports(tree: Tree) -> list[str]:
    """Return imports from our packages that name no file, which the other measures of imports and calls cannot see."""
    modules = modules_of(tree)
    broken = {
        f"{module.path}:{each.line} imports {each.module}"
        for module in modules
        for each in module.imports
        if each.module.partition(".")[0] in PACKAGES and each.module != OWN_BINARY and not modules.targets(each)
    }
    return sorted(broken)


def upward_imports(tree: Tree) -> list[str]:
    return [
        f"{module.path}:{each.line} imports {each.module}"
        for package, above in NEVER.items()
        for module in modules_of(tree).within(package)
        for each in module.imports
        if each.module.partition(".")[0] in above
    ]


def private_imports(tree: Tree, *places: str) -> list[str]:
    """Return imports of a private module or name of ours from another folder, and uses of one as `module._name`."""
    modules = modules_of(tree)
    wanted = [m for m in modules if m.path.partition("/")[0] in places]
    return [f"{m.path}:{line} {name}" for m in wanted for name, line in sorted(set(_private_names(modules, m)))]


def _private_names(modules: Modules, module: Module) -> Iterator[tuple[str, int]]:
    aliases = {}
    for each in module.imports:
        full = f"{each.module}.{each.name}" if each.name else each.module
        if modules.targets(each):
            if _leaves_home(modules, module, full):
                yield full, each.line
            as_written = each.name is None and each.alias == full.partition(".")[0]
            aliases[full if as_written else each.alias] = full
    for node in ast.walk(module.source.syntax):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            owner = aliases.get(ast.unparse(node.value))
            if owner in modules.by_name and _leaves_home(modules, module, f"{owner}.{node.attr}"):
                yield f"{owner}.{node.attr}", node.lineno


def _leaves_home(modules: Modules, module: Module, full: str) -> bool:
    """Whether a dotted name has a private part, a._b or a.c._d, and `module` is in another folder than a or a.c."""
    parts = full.split(".")
    for at, part in enumerate(parts):
        if _is_private(part) and ".".join(parts[: at + 1]) != OWN_BINARY:
            owner = modules.by_name.get(".".join(parts[:at]))
            return owner is not None and owner.folder != module.folder
    return False


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
