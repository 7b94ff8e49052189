"""Types of the expressions in a function, from plain annotations: enough to find the class of a called method."""

import ast
from dataclasses import dataclass

from .modules import Found, Module, Modules

Functions = (ast.FunctionDef, ast.AsyncFunctionDef)
Comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Type:
    """An instance of a class of ours (`owner`), such a class itself, a tuple of parts, or a collection of elements."""

    owner: Found | None = None
    itself: Found | None = None
    parts: tuple["Type", ...] = ()
    element: "Type | None" = None


UNKNOWN = Type()


class Types:
    """The names of a function; `owner` is its class, if it is a method. Pass it the assignments in their order."""

    def __init__(self, modules: Modules, module: Module, function: ast.AST, owner: Found | None) -> None:
        self.modules, self.module, self.owner = modules, module, owner
        self.types: dict[str, Type] = {"self": Type(owner)} if owner else {}
        self.stands_for: dict[str, Found | None] = {"cls": owner} if owner else {}
        for node in ast.walk(function):
            if isinstance(node, ast.arg) and node.annotation:
                self.types[node.arg] = self.annotated(module, node.annotation)
        for each in module.imports_in(function):
            for target in modules.targets(each):
                is_target = each.name is None or target.name == f"{each.module}.{each.name}"
                self.stands_for[each.alias] = Found(target) if is_target else modules.resolve(target, each.name or "")

    def resolve(self, node: ast.expr) -> Found | None:
        """Return the function, class, module or table that an expression names."""
        if isinstance(node, ast.Name):
            if node.id in self.stands_for:
                return self.stands_for[node.id]
            known = self.types.get(node.id)
            return known.itself if known else self.modules.resolve(self.module, node.id)
        if isinstance(node, ast.Attribute):
            holder = self.resolve(node.value)
            if holder and holder.node is None:
                return self.modules.resolve(holder.module, node.attr)
            if holder and isinstance(holder.node, ast.ClassDef):
                return self.modules.method(holder, node.attr)
        if isinstance(node, ast.Subscript):  # the table of the entry
            table = self.resolve(node.value)
            return table if table and isinstance(table.node, ast.Dict) else None
        return self.of(node).itself

    def of(self, node: ast.expr) -> Type:
        """Return the type of an expression."""
        if isinstance(node, ast.Name):
            return self.types.get(node.id, UNKNOWN)
        if isinstance(node, ast.Attribute):
            return self._attribute(self.of(node.value).owner, node.attr)
        if isinstance(node, ast.Subscript):
            whole = self.of(node.value)
            if whole.parts and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
                return whole.parts[node.slice.value]
            return whole.element or UNKNOWN
        if isinstance(node, (ast.IfExp, ast.BoolOp)):
            either = (node.body, node.orelse) if isinstance(node, ast.IfExp) else node.values
            return next((t for t in map(self.of, either) if t != UNKNOWN), UNKNOWN)
        if isinstance(node, ast.Tuple):
            return Type(parts=tuple(self.of(part) for part in node.elts))
        if isinstance(node, Comprehensions) and not isinstance(node, ast.DictComp):
            return Type(element=self.of(node.elt))
        return self._returned(node) if isinstance(node, ast.Call) else UNKNOWN

    def _returned(self, call: ast.Call) -> Type:
        found = self.resolve(call.func)
        if found is None and isinstance(call.func, ast.Attribute):
            owner = self.of(call.func.value).owner
            found = self.modules.method(owner, call.func.attr) if owner else None
        elif found is None and ast.unparse(call) == "super()" and self.owner:
            return Type(next(self.modules.bases(self.owner), None))
        if found and isinstance(found.node, ast.ClassDef):
            return Type(found)
        if found and isinstance(found.node, Functions) and found.node.returns:
            return self.annotated(found.module, found.node.returns)
        return UNKNOWN

    def _attribute(self, owner: Found | None, name: str) -> Type:
        """The type of a field that a class or a base annotates, a property, or a parameter that __init__ keeps."""
        if owner is None or not isinstance(owner.node, ast.ClassDef):
            return UNKNOWN
        for node in owner.node.body:
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name:
                return self.annotated(owner.module, node.annotation)
            if isinstance(node, Functions) and node.name == name and node.returns:
                return self.annotated(owner.module, node.returns)
            if isinstance(node, Functions) and node.name == "__init__":
                kept = _kept_parameter(node, name)
                if kept is not None:
                    return self.annotated(owner.module, kept)
        return next((t for base in self.modules.bases(owner) if (t := self._attribute(base, name)) != UNKNOWN), UNKNOWN)

    def annotated(self, module: Module, node: ast.expr) -> Type:
        """Return the type of an annotation in `module`; of a union, the first that is one of ours."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self.annotated(module, ast.parse(node.value, mode="eval").body)
        if isinstance(node, ast.BinOp):
            left = self.annotated(module, node.left)
            return left if left != UNKNOWN else self.annotated(module, node.right)
        if isinstance(node, ast.Subscript):
            arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if ast.unparse(node.value) == "tuple" and ast.unparse(arguments[-1]) != "...":
                return Type(parts=tuple(self.annotated(module, a) for a in arguments))
            if ast.unparse(node.value) == "Literal":
                return UNKNOWN
            if ast.unparse(node.value) == "type":
                return Type(itself=self.annotated(module, node.slice).owner)
            in_dict = ast.unparse(node.value) in ("dict", "Mapping")
            return Type(element=self.annotated(module, arguments[-1 if in_dict else 0]))
        if isinstance(node, ast.Name) and node.id == "Self":
            return Type(self.owner)
        found = Types.named(self.modules, module, node)
        if found and isinstance(found.node, ast.ClassDef):
            return Type(found)
        return self.annotated(found.module, found.node) if found and isinstance(found.node, ast.Subscript) else UNKNOWN

    @staticmethod
    def named(modules: Modules, module: Module, node: ast.expr) -> Found | None:
        """Return the definition of `a` or `a.b` at the top of a module."""
        if isinstance(node, ast.Name):
            return modules.resolve(module, node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            holder = modules.resolve(module, node.value.id)
            return modules.resolve(holder.module, node.attr) if holder and holder.node is None else None
        return None

    def assign(self, node: ast.AST) -> None:
        """Record an assignment, or the variables of a loop or a comprehension."""
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, self.of(node.value), self.resolve(node.value))
        elif isinstance(node, ast.AnnAssign):
            self._bind(node.target, self.annotated(self.module, node.annotation), None)
        elif isinstance(node, ast.For):
            self._bind(node.target, self.of(node.iter).element or UNKNOWN, None)
        elif isinstance(node, Comprehensions):
            for generator in node.generators:
                self._bind(generator.target, self.of(generator.iter).element or UNKNOWN, None)

    def _bind(self, target: ast.expr, value: Type, found: Found | None) -> None:
        if isinstance(target, ast.Tuple):
            parts = value.parts if len(value.parts) == len(target.elts) else [UNKNOWN] * len(target.elts)
            for part, of_part in zip(target.elts, parts, strict=True):
                self._bind(part, of_part, None)
        elif isinstance(target, ast.Name):
            self.types[target.id] = value
            self.stands_for.pop(target.id, None)
            if found:
                self.stands_for[target.id] = found


def _kept_parameter(init: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> ast.expr | None:
    """Return the annotation of the parameter that `self.name = parameter` keeps."""
    annotations = {a.arg: a.annotation for a in (*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs)}
    for node in ast.walk(init):
        if isinstance(node, ast.Assign) and f"self.{name}" in map(ast.unparse, node.targets):
            return annotations.get(node.value.id) if isinstance(node.value, ast.Name) else None
    return None
