"""Proof with torch.fx, from a model's own forward, that a batch norm feeds one neuron and nothing else.

The forward is traced symbolically along every path: both outcomes of each condition on a tensor are followed. A path
that ends in a `raise` of the model's own does not count. Modules without a batch norm or a neuron are not traced into.
If a model cannot be traced, each of its children is traced as a whole.
"""

import dis
import inspect
from collections import Counter
from typing import Any

from torch import fx, nn

MAX_PATHS = 64
SHAPE_METHODS = ("unflatten", "view", "reshape")
"""Calls allowed between the two: they keep the order of the elements, and the neuron checks the shape of its input."""


class _Refused(Exception):
    """The model itself raised. Such a call has no output, so there is nothing to prove about it."""


class _PathTracer(fx.Tracer):
    """Symbolic tracing that takes the outcomes of conditions from a list, and appends False when it reaches the end."""

    def __init__(self, decisions: list[bool], known: set[nn.Module]) -> None:
        super().__init__()
        self.decisions, self.known, self.taken = decisions, known, 0

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.known or not any(child in self.known for child in m.modules())

    def to_bool(self, obj: fx.Proxy) -> bool:
        if self.taken == len(self.decisions):
            self.decisions.append(False)
        self.taken += 1
        return self.decisions[self.taken - 1]


def _trace(root: nn.Module, decisions: list[bool], known: set[nn.Module]) -> fx.Graph:
    """Trace one path. Arguments with a default keep it."""
    defaults = {
        name: p.default for name, p in inspect.signature(root.forward).parameters.items() if p.default is not p.empty
    }
    try:
        return _PathTracer(decisions, known).trace(root, concrete_args=defaults or None)
    except Exception as error:
        innermost: Any = error.__traceback__
        while innermost.tb_next is not None:
            innermost = innermost.tb_next
        code = innermost.tb_frame.f_code.co_code
        by_model = not innermost.tb_frame.f_globals.get("__name__", "").startswith("torch.")
        if by_model and code[innermost.tb_lasti] == dis.opmap["RAISE_VARARGS"]:
            raise _Refused from error
        raise


def _paths(root: nn.Module, known: set[nn.Module]) -> list[fx.Graph] | None:
    """Return the graphs of all paths; None if the model cannot be traced, or has too many paths."""
    graphs: list[fx.Graph] = []
    decisions: list[bool] = []
    for _ in range(MAX_PATHS):
        try:
            graphs.append(_trace(root, decisions, known))
        except _Refused:
            pass
        except Exception:  # anything that tracing cannot follow: unproved, so the pair is left alone
            return None
        while decisions and decisions[-1]:
            decisions.pop()
        if not decisions:
            return graphs
        decisions[-1] = True
    return None


def _numbers(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes that only read sizes or compute with them."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        asked = node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim")
        asked = asked or (node.op == "call_method" and node.target in ("size", "dim"))
        reckoned = node.op == "call_function" and node.all_input_nodes and found.issuperset(node.all_input_nodes)
        if asked or reckoned:
            found.add(node)
    return found


def _fed_by(call: fx.Node, root: nn.Module, neurons: set[nn.Module], numbers: set[fx.Node]) -> nn.Module | None:
    """Return the neuron that alone gets the output of this call of a batch norm, and is called next, so that nothing in
    between can change the batch norm's input in place. (torch.fx traces `y += 1` as an addition.)"""
    way, node = {call}, call
    while len(node.users) == 1:
        (user,) = node.users
        if user.args[:1] != (node,):
            return None
        if user.op == "call_module":
            module = root.get_submodule(str(user.target))
            last = call
            while last in way or last in numbers:
                last = last.next
            alone = module in neurons and len(user.args) == 1 and not user.kwargs
            return module if alone and last is user else None
        if user.op != "call_method" or user.target not in SHAPE_METHODS:
            return None
        node = user
        way.add(node)
    return None


def _pairs_in(graph: fx.Graph, root: nn.Module, norms: set[nn.Module], neurons: set[nn.Module]) -> dict[Any, set[Any]]:
    """Return each batch norm and neuron that is called, with all its partners; None among them where it has none."""
    partners: dict[Any, set[Any]] = {}
    calls = [(node, root.get_submodule(str(node.target))) for node in graph.nodes if node.op == "call_module"]
    inputs: Counter[nn.Module] = Counter()
    numbers = _numbers(graph)
    for node, module in calls:
        if module in norms:
            neuron = _fed_by(node, root, neurons, numbers)
            partners.setdefault(module, set()).add(neuron)
            if neuron is not None:
                partners.setdefault(neuron, set()).add(module)
                inputs[neuron] += 1
    for neuron, times in Counter(module for _, module in calls if module in neurons).items():
        if times != inputs[neuron]:
            partners.setdefault(neuron, set()).add(None)
    return partners


def _with_mode(root: nn.Module, training: bool, known: set[nn.Module]) -> list[fx.Graph] | None:
    before = {module: module.training for module in root.modules()}
    try:
        for module in before:
            module.training = training
        return _paths(root, known)
    finally:
        for module, mode in before.items():
            module.training = mode


Pairs = dict[nn.Module, dict[nn.Module, nn.Module]]


def proved_pairs(root: nn.Module, norms: set[nn.Module], neurons: set[nn.Module]) -> Pairs:
    """Return {owner: {batch norm: neuron}} for every pair that is consecutive on every path of the owner's forward, in
    training and in evaluation. The owner is `root`, or a module in it where `root` cannot be traced."""
    inside = set(root.modules())
    norms, neurons = norms & inside, neurons & inside
    if not norms or not neurons or root in norms | neurons:
        return {}
    known = norms | neurons
    graphs = [_with_mode(root, training, known) for training in (True, False)]
    if any(g is None for g in graphs):
        found: Pairs = {}
        owners = Counter(module for child in root.children() for module in child.modules())
        own = {module for module in known if owners[module] == 1}  # a module that two children share has two callers
        for child in root.children():
            found |= proved_pairs(child, norms & own, neurons & own)
        return found
    partners: dict[Any, set[Any]] = {}
    for graph in (graph for paths in graphs for graph in paths or []):
        for module, with_whom in _pairs_in(graph, root, norms, neurons).items():
            partners.setdefault(module, set()).update(with_whom)
    pairs = {
        norm: next(iter(partners[norm]))
        for norm in norms & partners.keys()
        if len(partners[norm]) == 1 and partners[norm] != {None} and partners[next(iter(partners[norm]))] == {norm}
    }
    return {root: pairs}
