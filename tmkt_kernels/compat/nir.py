"""NIR, the exchange format between spiking libraries (Pedersen et al., 2024, arXiv 2311.14641): `to_nir`, `from_nir`.

A model here takes sequences, with PerStep around layers without time (convolution, pooling). NIR's parameters are in
units of time; `dt` is the length of a step in that unit. NIR does not specify a neuron's reset, firing rule and
surrogate: we write them into the node's metadata, and read them from there or derive them from `exported_by`.
"""

import graphlib
import keyword
import math
import operator
from collections.abc import Callable, Collection
from typing import Any

import nir
import nirtorch
import numpy as np
import torch
from torch import Tensor, fx, nn

from ..nn import IF, LIF, Leaky, ParametricLIF, PerStep
from ..nn.neurons import MultiStepNeuron

if "v_reset" not in nir.LIF.__dataclass_fields__ or not hasattr(nirtorch, "torch_to_nir"):
    raise ImportError("expected nir >= 1.0.7 and nirtorch >= 2.6, found older ones; `pip install 'tmkt[nir]'`")

DT = 1e-4
"""Step length that snnTorch and SpikingJelly use; sinabs counts in steps (dt=1), norse in 1e-3."""

NEURONS_OF: dict[str, dict[str, Any]] = {
    "spikingjelly": {"reset": "hard"},
    "snntorch": {"reset": "subtract"},
    "norse": {"reset": "hard", "strict": True},
    "sinabs": {"reset": "soft"},
}
"""Defaults of each library's neurons, which their exports do not state."""


NEVER = torch.finfo(torch.float32).max
"""A threshold above which no finite potential rises."""

PER_STEP = (nn.Conv1d, nn.Conv2d, nn.AvgPool2d)
"""Layers without time for which NIR has nodes."""


class CubaLIF(nn.Module):
    """LIF neurons behind an exponential synapse: i = alpha i + x, v = beta v + i, then spike and reset as `neuron`.

    Args:
        alpha: decay of the current, 0 to 1.
        neuron: `Leaky` (snnTorch's Synaptic), or `LIF` with decay_input=False (SpikingJelly's CUBALIFNode).
    """

    def __init__(self, alpha: float, neuron: MultiStepNeuron) -> None:
        super().__init__()
        self.current = Leaky(alpha, NEVER, "none", return_v=True)
        self.neuron = neuron

    def forward(self, x_seq: Tensor) -> Tensor:
        spikes: Tensor = self.neuron(self.current(x_seq)[1])
        return spikes


def to_nir(model: nn.Module, x_seq: Tensor, *, dt: float = DT) -> nir.NIRGraph:
    """Export a model of nn.Linear, nn.Flatten, PerStep, the neurons of `tmkt_kernels.nn`, CubaLIF and additions.

    Args:
        model: maps x_seq to spikes; torch.fx must be able to trace it.
        x_seq: an input [T, B, ...], which gives the shapes of the nodes. The model runs once on it.
        dt: length of a step.

    Raises:
        ValueError: a layer, or an option of one, for which NIR has no node.
    """
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        shapes[module] = tuple(args[0].shape[2:])

    handles = [module.register_forward_pre_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model(x_seq)
    finally:
        for handle in handles:
            handle.remove()
    exporters: dict[type, Callable[[Any], nir.NIRNode]] = {
        nn.Linear: _export_linear,
        nn.Flatten: lambda m: _export_flatten(m, shapes[m], 2),
        PerStep: lambda m: _export_step(m, shapes[m]),
        CubaLIF: lambda m: _export_cuba(m, shapes[m], dt),
    }
    exporters |= {kind: lambda m: _export_neuron(m, shapes[m], dt) for kind in (IF, LIF, ParametricLIF, Leaky)}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{path}.") for path, m in model.named_modules() if type(m) in exporters and path)
        if type(module) not in exporters and not inside and not any(module.children()):
            raise ValueError(f"{name}: {_why_not(module, exporters)}")
    return nirtorch.torch_to_nir(model, exporters, default_dict={})


def _numpy(value: Any) -> Any:
    """Return a copy as a numpy array of a value in NIR: an array, a number, or a tensor, as norse and sinabs write."""
    return value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else np.array(value)


def _why_not(module: nn.Module, exporters: Collection[type]) -> str:
    """Return why this module of a model cannot be exported, and what to do."""
    name = type(module).__name__
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        fold = "tmkt_kernels.nn.fuse_conv(conv, layer)" if hasattr(module, "lif") else "nn.utils.fuse_conv_bn_eval"
        return f"NIR has no batch norm; call model.eval() and fold {name} into the convolution before it: {fold}"
    if isinstance(module, PER_STEP):
        return f"{name} takes no sequences; expected PerStep({name}(...)), in a model of x_seq [T, B, ...] throughout"
    return f"NIR has no node for {name}; expected {', '.join(kind.__name__ for kind in exporters)}"


def _export_linear(m: nn.Linear) -> nir.NIRNode:
    return nir.Linear(_numpy(m.weight)) if m.bias is None else nir.Affine(_numpy(m.weight), _numpy(m.bias))


def _export_flatten(m: nn.Flatten, shape: tuple[int, ...], leading: int) -> nir.NIRNode:
    if 0 <= m.start_dim < leading or 0 <= m.end_dim < leading:
        raise ValueError(f"Flatten({m.start_dim}, {m.end_dim}): NIR cannot merge steps or samples")
    start, end = (d - leading if d >= 0 else d for d in (m.start_dim, m.end_dim))
    return nir.Flatten(input_type={"input": np.array(shape)}, start_dim=start, end_dim=end)


def _export_step(m: PerStep, shape: tuple[int, ...]) -> nir.NIRNode:
    if len(m) != 1:
        raise ValueError(f"PerStep: expected one layer in each to export, got {len(m)}; give each a PerStep of its own")
    return _export_layer(m[0], shape)


def _export_layer(m: Any, shape: tuple[int, ...]) -> nir.NIRNode:
    if isinstance(m, (nn.Conv1d, nn.Conv2d)) and m.padding_mode == "zeros" and m.groups == 1:  # nir 1.0.8 has no groups
        bias = np.zeros(m.out_channels, np.float32) if m.bias is None else _numpy(m.bias)
        one = isinstance(m, nn.Conv1d)
        values = {k: getattr(m, k)[0] if one else getattr(m, k) for k in ("stride", "padding", "dilation")}
        size = shape[-1] if one else shape[-2:]
        kind = nir.Conv1d if one else nir.Conv2d
        return kind(input_shape=size, weight=_numpy(m.weight), groups=m.groups, bias=bias, **values)
    if isinstance(m, nn.AvgPool2d) and not m.ceil_mode and m.divisor_override is None and not np.any(m.padding):
        return nir.AvgPool2d(*(np.array(nn.modules.utils._pair(v)) for v in (m.kernel_size, m.stride, 0)))
    if isinstance(m, nn.Flatten):
        return _export_flatten(m, shape, 1)
    if isinstance(m, nn.Linear):
        return _export_linear(m)
    if isinstance(m, nn.modules.batchnorm._BatchNorm):
        raise ValueError(f"PerStep: {_why_not(m, ())}")
    raise ValueError(f"PerStep({m}): NIR has no node for it, or for one of its options")


def _filled(value: Any, shape: tuple[int, ...]) -> Any:
    """Return a parameter for every neuron, from one value or one per channel."""
    array = _numpy(value).astype(np.float64)
    if array.ndim == 1:
        array = array.reshape(-1, *[1] * (len(shape) - 1))
    return np.broadcast_to(array, shape).copy()


def _metadata(reset: str, keywords: dict[str, Any]) -> dict[str, Any]:
    if callable(keywords["surrogate"]):
        raise ValueError("surrogate: a function cannot be stored; expected the name of a surrogate")
    alpha = np.atleast_1d(np.array(keywords["alpha"], dtype=np.float64))
    known = {"surrogate": keywords["surrogate"], "alpha": alpha, "reset": reset}
    return known | ({"detach_reset": int(keywords["detach_reset"])} if "detach_reset" in keywords else {})


def _export_neuron(m: Any, shape: tuple[int, ...], dt: float) -> nir.NIRNode:
    def value(name: str) -> Any:
        return getattr(m, name) if name in m.tensors else m.keywords[name]

    if isinstance(m, Leaky):
        beta, threshold = _filled(value("beta"), shape), _filled(value("threshold"), shape)
        zero, ones = np.zeros(shape), np.ones(shape)
        meta = _metadata(value("reset_mechanism"), m.keywords)
        if bool((beta >= 1).all()):
            return nir.IF(r=ones / dt, v_threshold=threshold, v_reset=zero, metadata=meta)
        if bool((beta >= 1).any()):
            raise ValueError("beta: NIR has no node for neurons of which only some leak")
        steps = 1 / (1 - beta)
        return nir.LIF(tau=steps * dt, r=steps, v_leak=zero, v_threshold=threshold, v_reset=zero, metadata=meta)
    soft = value("v_reset") is None
    meta = _metadata("soft" if soft else "hard", m.keywords)
    threshold, v_reset = _filled(value("v_threshold"), shape), _filled(0.0 if soft else value("v_reset"), shape)
    tau = _filled(m.tau if isinstance(m, ParametricLIF) else value("tau"), shape)
    if bool(np.isinf(tau).all()):
        return nir.IF(r=np.full(shape, 1 / dt), v_threshold=threshold, v_reset=v_reset, metadata=meta)
    r = np.ones(shape) if value("decay_input") else tau
    return nir.LIF(tau=tau * dt, r=r, v_leak=v_reset, v_threshold=threshold, v_reset=v_reset, metadata=meta)


def _export_cuba(m: CubaLIF, shape: tuple[int, ...], dt: float) -> nir.NIRNode:
    lif = _export_neuron(m.neuron, shape, dt)
    alpha = float(m.current.keywords["beta"])
    if not isinstance(lif, nir.LIF) or not np.allclose(lif.r, lif.tau / dt) or alpha >= 1:
        raise ValueError("CubaLIF: expected decays below 1, and a neuron that does not decay its input")
    steps = 1 / (1 - alpha)
    rest = {name: getattr(lif, name) for name in ("r", "v_leak", "v_threshold", "v_reset", "metadata")}
    return nir.CubaLIF(tau_syn=np.full(shape, steps * dt), tau_mem=lif.tau, w_in=np.full(shape, steps), **rest)


def from_nir(graph: nir.NIRGraph, *, dt: float = DT, exported_by: str | None = None) -> fx.GraphModule:
    """Import a feed-forward graph as a model of x_seq [T, B, ...] -> spikes [T, B, ...].

    Args:
        graph: from `nir.read` or a library's export.
        dt: length of a step in the graph's unit of time: 1e-4 for snnTorch and SpikingJelly, 1 for sinabs.
        exported_by: "spikingjelly", "snntorch", "norse" or "sinabs", whose reset and firing rule apply to neurons
            without metadata. None: a hard reset to v_reset, firing from the threshold on.

    Raises:
        ValueError: a node, a parameter or a cycle that our layers cannot express, named.
    """
    if exported_by is not None and exported_by not in NEURONS_OF:
        raise ValueError(f"exported_by: expected None or one of {sorted(NEURONS_OF)}, got {exported_by!r}")
    default = NEURONS_OF[exported_by or "spikingjelly"]
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in sorted(graph.edges):
        sources[target].append(source)
    try:
        order = list(graphlib.TopologicalSorter(sources).static_order())
    except graphlib.CycleError as error:
        raise ValueError(f"graph: expected no cycles, found {error.args[1]}") from None
    modules: dict[str, nn.Module] = {}
    flow = fx.Graph()
    values: dict[str, fx.Node] = {}
    for name in order:
        node = graph.nodes[name]
        if isinstance(node, nir.Input):
            values[name] = flow.placeholder("x_seq")
            continue
        x = values[sources[name][0]]
        for more in sources[name][1:]:
            x = flow.call_function(operator.add, (x, values[more]))
        if isinstance(node, nir.Output):
            flow.output(x)
            continue
        key = _key(name, modules)
        try:
            modules[key] = _import(node, dt, default)
        except ValueError as error:
            raise ValueError(f"node {name!r}: {error}") from None
        values[name] = flow.call_module(key, (x,))
    return fx.GraphModule(modules, flow)


def _key(name: str, taken: Collection[str]) -> str:
    """Return a node's name as a submodule's: no keyword, no attribute of a module, and no other submodule's name."""
    key = name.replace(".", "_")
    while keyword.iskeyword(key) or hasattr(fx.GraphModule, key) or hasattr(nn.Module(), key) or key in taken:
        key += "_"
    return key


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(_numpy(value), dtype=torch.float32)


def _import(node: nir.NIRNode, dt: float, default: dict[str, Any]) -> nn.Module:
    if isinstance(node, (nir.Affine, nir.Linear)):
        return _import_weights(nn.Linear(node.weight.shape[1], node.weight.shape[0], hasattr(node, "bias")), node)
    if isinstance(node, (nir.Conv1d, nir.Conv2d)):
        shape = node.weight.shape
        kind = nn.Conv1d if isinstance(node, nir.Conv1d) else nn.Conv2d
        values = {k: _plain(getattr(node, k)) for k in ("stride", "padding", "dilation")}
        groups = int(node.groups)
        layer = kind(shape[1] * groups, shape[0], tuple(shape[2:]), groups=groups, **values)
        return PerStep(_import_weights(layer, node))
    if isinstance(node, (nir.AvgPool2d, nir.SumPool2d)):
        total = 1 if isinstance(node, nir.SumPool2d) else None
        kernel, stride, padding = (_plain(v) for v in (node.kernel_size, node.stride, node.padding))
        return PerStep(nn.AvgPool2d(kernel, stride, padding, divisor_override=total))
    if isinstance(node, nir.Flatten):
        start, end = (int(d) + 1 if d >= 0 else int(d) for d in (node.start_dim, node.end_dim))
        return PerStep(nn.Flatten(start, end))
    if isinstance(node, (nir.IF, nir.LIF)):
        return _import_neuron(node, dt, default)
    if isinstance(node, nir.CubaLIF):
        steps = _parameter(node.tau_syn, "tau_syn") / dt
        _expect("w_in dt / tau_syn", _parameter(node.w_in, "w_in") / steps, 1.0)
        if not isinstance(steps, float):
            raise ValueError("tau_syn: expected one value for all neurons")
        rest = {name: getattr(node, name) for name in ("r", "v_leak", "v_threshold", "v_reset", "metadata")}
        lif = nir.LIF(tau=node.tau_mem, **rest)
        _expect("r dt / tau_mem", _parameter(node.r, "r") * dt / _parameter(node.tau_mem, "tau_mem"), 1.0)
        return CubaLIF(1 - 1 / steps, _import_neuron(lif, dt, default))
    raise ValueError(f"we have no layer for {type(node).__name__}")


def _import_weights(layer: Any, node: Any) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(_tensor(node.weight))
        if layer.bias is not None:
            layer.bias.copy_(_tensor(node.bias))
    module: nn.Module = layer
    return module


def _plain(value: Any) -> Any:
    """Return an int, a tuple of ints or a string from a value in NIR, which may come from a file."""
    if isinstance(value, (str, bytes)):
        return value.decode() if isinstance(value, bytes) else value
    array = _numpy(value)
    return int(array) if array.ndim == 0 else tuple(int(v) for v in array)


def _parameter(value: Any, name: str) -> Any:
    """Return a float if all neurons share it, else a tensor with one value per channel."""
    array = _numpy(value).astype(np.float64)
    channels = array.reshape(array.shape[0], -1) if array.ndim else array.reshape(1, 1)
    if np.all(channels == channels.flat[0]):
        return float(channels.flat[0])
    if np.all(channels == channels[:, :1]):
        return torch.tensor(channels[:, 0], dtype=torch.float32)
    raise ValueError(f"{name}: expected one value, or one for each channel; it differs inside a channel")


def _expect(what: str, value: Any, expected: Any) -> None:
    if not np.allclose(_numpy(value), _numpy(expected), rtol=1e-5, atol=1e-9):
        raise ValueError(f"{what}: expected {expected}, got {value}: no neuron here has it")


def _import_neuron(node: Any, dt: float, default: dict[str, Any]) -> MultiStepNeuron:
    said = default | {k: v for k, v in node.metadata.items() if k in ("reset", "surrogate", "alpha", "detach_reset")}
    options: dict[str, Any] = {}
    if "surrogate" in said:
        alpha = tuple(float(a) for a in np.atleast_1d(said["alpha"]))
        options = {"surrogate": str(said["surrogate"]), "alpha": alpha if len(alpha) > 1 else alpha[0]}
    threshold, v_reset = _parameter(node.v_threshold, "v_threshold"), _parameter(node.v_reset, "v_reset")
    if isinstance(node, nir.IF):
        _expect("r dt", _parameter(node.r, "r") * dt, 1.0)
        tau, decay_input = math.inf, True
    else:
        tau, r = _parameter(node.tau, "tau") / dt, _parameter(node.r, "r")
        decay_input = bool(np.allclose(_numpy(r), 1.0))
        if not decay_input:
            _expect("r", r, tau)
        _expect("v_leak", _parameter(node.v_leak, "v_leak"), v_reset)
    if said["reset"] in ("subtract", "zero", "none"):
        _expect("v_leak", v_reset, 0.0)
        if decay_input and not isinstance(node, nir.IF):
            raise ValueError("r: snnTorch's neurons do not decay their input, expected tau / dt")
        return Leaky(1 - 1 / tau, threshold, said["reset"], **options)
    if "detach_reset" in said:
        options["detach_reset"] = bool(said["detach_reset"])
    if said.get("strict") and "surrogate" not in said:
        threshold = _next_float(threshold)
    if said["reset"] == "soft":
        _expect("v_reset", v_reset, 0.0)
        v_reset = None
    return LIF(tau, decay_input, threshold, v_reset, **options)


def _next_float(value: Any) -> Any:
    """Return the next float. Firing above a threshold is firing from the next float on."""
    above = torch.nextafter(torch.as_tensor(value, dtype=torch.float32), torch.tensor(math.inf))
    return above if isinstance(value, Tensor) else float(above)
