"""Python's modules and the names in them: imports of each module, and definitions of names."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from .sources import Source, Tree, called_name

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Import(NamedTuple):
    """`from module import name as alias`; name is None for `import module`."""

    module: str
    name: str | None
    alias: str
    line: int


@dataclass(frozen=True)
class Module:
    name: str  # tmkt.data.prepare
    source: Source

    @property
    def path(self) -> str:
        return self.source.path

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    @cached_property
    def imports(self) -> list[Import]:
        """All imports, including those inside functions."""
        return list(self.imports_in(self.source.syntax))

    def imports_in(self, node: ast.AST) -> Iterator[Import]:
        for child in ast.walk(node):
            if isinstance(child, ast.Import):
                for a in child.names:
                    top = a.name.partition(".")[0]
                    yield Import(a.name, None, a.asname or top, child.lineno)
            elif isinstance(child, ast.ImportFrom):
                for a in child.names:
                    yield Import(self._absolute(child), a.name, a.asname or a.name, child.lineno)
            elif isinstance(child, ast.Call) and called_name(child) == "import_module":
                name = child.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield Import(self._from_here(name.value), None, "", child.lineno)

    def _absolute(self, node: ast.ImportFrom) -> str:
        return self._from_here("." * node.level + (node.module or ""))

    def _from_here(self, name: str) -> str:
        """Return the absolute name of a name that may begin with dots."""
        level = len(name) - len(name.lstrip("."))
        if level == 0:
            return name
        parts = self.name.split(".")
        parts = parts[: len(parts) - level + self.is_package]
        return ".".join([*parts, *filter(None, [name[level:]])])

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """Functions and classes at the top, including those under an `if` or a `try`."""
        return {n.name: n for n in _statements(self.source.syntax.body) if isinstance(n, Definition)}

    @cached_property
    def values(self) -> dict[str, ast.expr]:
        """Values assigned at the top."""
        found: dict[str, ast.expr] = {}
        for node in _statements(self.source.syntax.body):
            if isinstance(node, ast.Assign):
                found |= {t.id: node.value for t in node.targets if isinstance(t, ast.Name)}
            elif isinstance(node, ast.AnnAssign) and node.value and isinstance(node.target, ast.Name):
                found[node.target.id] = node.value
        return found

    @cached_property
    def imported(self) -> dict[str, Import]:
        """Imports at the top, by alias."""
        tops = [n for n in _statements(self.source.syntax.body) if isinstance(n, (ast.Import, ast.ImportFrom))]
        return {i.alias: i for node in tops for i in self.imports_in(node)}


class Found(NamedTuple):
    """The definition of a name: a module (no node), a function, a class, or a value."""

    module: Module
    node: Definition | ast.expr | None = None


class Modules:
    def __init__(self, tree: Tree) -> None:
        modules = (Module(_module_name(s.path), s) for s in tree.sources.values() if s.is_python)
        self.by_name = {module.name: module for module in modules}

    def __iter__(self) -> Iterator[Module]:
        return iter(self.by_name.values())

    def within(self, package: str) -> list[Module]:
        return [m for m in self if m.name == package or m.name.startswith(package + ".")]

    def targets(self, an_import: Import) -> list[Module]:
        """Return our modules that an import names: a submodule, or else the module from which it takes the name."""
        if an_import.name:
            submodule = self.by_name.get(f"{an_import.module}.{an_import.name}")
            module = self.by_name.get(an_import.module)
            takes_submodule = submodule and not (module and an_import.name in {*module.definitions, *module.values})
            return [m for m in (submodule if takes_submodule else module,) if m]
        return [m for m in (self.by_name.get(an_import.module),) if m]

    def resolve(self, module: Module, name: str) -> Found | None:
        """Return the definition of `name` in `module`, through imports and plain assignments; None if not ours."""
        for _ in range(20):  # stops for imports in a circle
            if name in module.definitions:
                return Found(module, module.definitions[name])
            if name in module.values:
                value = module.values[name]
                if not isinstance(value, ast.Name) or value.id == name:
                    return Found(module, value)
                name = value.id
            elif name in module.imported:
                targets = self.targets(module.imported[name])
                taken = module.imported[name].name
                if not targets:
                    return None
                if taken is None or targets[0].name == f"{module.imported[name].module}.{taken}":
                    return Found(targets[0])
                module, name = targets[0], taken
            else:
                submodule = self.by_name.get(f"{module.name}.{name}")
                return Found(submodule) if submodule and module.is_package else None
        return None

    def exported(self, name: str) -> Iterator[tuple[str, Found]]:
        """Return (name, definition) for a module's `__all__`, or for its definitions without an underscore."""
        module = self.by_name[name]
        listed = module.values.get("__all__")
        names = ast.literal_eval(listed) if listed else [n for n in module.definitions if not n.startswith("_")]
        for each in names:
            found = self.resolve(module, each)
            if found:
                yield each, found

    def method(self, owner: Found, name: str) -> Found | None:
        """Return a method of a class or of its nearest base among ours."""
        assert isinstance(owner.node, ast.ClassDef)
        for node in owner.node.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
                return Found(owner.module, node)
        for base in self.bases(owner):
            found = self.method(base, name)
            if found:
                return found
        return None

    def bases(self, owner: Found) -> Iterator[Found]:
        assert isinstance(owner.node, ast.ClassDef)
        for base in owner.node.bases:
            found = self.resolve(owner.module, base.id) if isinstance(base, ast.Name) else None
            if found and isinstance(found.node, ast.ClassDef) and found.node is not owner.node:
                yield found


@cache
def modules_of(tree: Tree) -> Modules:
    return Modules(tree)


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)
