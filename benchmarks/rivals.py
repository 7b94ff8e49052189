"""The rivals' neurons, each over a whole sequence: LIF with tau = 2, hard reset to 0, reset detached.

Each has the same recurrence as ours. For a rival without the arc tangent, which keeps its own default surrogate, only
spikes are checked. Rivals that are not installed are left out, and `absent` names them.
"""

import contextlib
import importlib.metadata
import importlib.util
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tmkt_kernels.ops.lif.reference import Fire

Layer = Callable[[Tensor], Tensor]

PACKAGES = {"SpikingJelly": "spikingjelly", "snnTorch": "snntorch", "norse": "norse", "sinabs": "sinabs"}


class Rival(NamedTuple):
    """`make(v_threshold)` returns a layer x_seq [T, B, ...] -> spikes.

    same_gradient: arc tangent with alpha = 2, reset detached. decay_input: h = v + (x - v) / 2, else v / 2 + x.
    """

    make: Callable[[float], Layer]
    version: str = ""
    same_gradient: bool = True
    decay_input: bool = True


def rivals(device: str, dtype: torch.dtype) -> dict[str, Rival]:
    """Return the installed rivals that take this dtype. Rivals that loop over steps in Python run in fp32 only."""
    found = {"torch.compile": Rival(compiled_loop), "plain loop": Rival(plain_loop)}
    if is_installed("spikingjelly"):
        found["SpikingJelly"] = Rival(spikingjelly, version("spikingjelly"))
        if device == "cuda" and dtype != torch.float32:
            precise = Rival(lambda v_threshold: spikingjelly(v_threshold, dtype), version("spikingjelly"))
            found["SpikingJelly precision"] = precise
    if dtype == torch.float32:
        if is_installed("snntorch"):
            found["snnTorch"] = Rival(snntorch, version("snntorch"), same_gradient=False, decay_input=False)
        if is_installed("norse"):
            found["norse"] = Rival(norse, version("norse"), same_gradient=False)
        if is_installed("sinabs"):
            found["sinabs"] = Rival(sinabs, version("sinabs"), same_gradient=False)
    return found


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def version(package: str) -> str:
    return importlib.metadata.version(package)


def absent() -> list[str]:
    """Return the names of rivals that are not installed here."""
    return [name for name, package in {**PACKAGES, "tonic": "tonic"}.items() if not is_installed(package)]


def plain_loop(v_threshold: float = 1.0) -> Layer:
    """LIF in the usual PyTorch code."""

    def run(x_seq: Tensor) -> Tensor:
        v = torch.zeros_like(x_seq[0])
        spikes = []
        for x in x_seq.unbind(0):
            v = v + (x - v) / 2
            s = Fire.apply(v - v_threshold, 0, 2.0)
            v = v * (1 - s.detach())
            spikes.append(s)
        return torch.stack(spikes)

    return run


def compiled_loop(v_threshold: float) -> Layer:
    return torch.compile(plain_loop(v_threshold), dynamic=False)


def spikingjelly(v_threshold: float, precision: torch.dtype | None = None) -> Layer:
    """LIFNode with its defaults; with a `precision`, as its precision API sets it up (CUDA, Triton)."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    node: Any = neuron.LIFNode(
        v_threshold=v_threshold, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m"
    )
    if precision:
        node = precise(node, precision)

    def run(x_seq: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x_seq)

    return run


def precise(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return the model as SpikingJelly's precision API sets it up for a half type."""
    from spikingjelly.activation_based.precision import PrecisionConfig, prepare_model_for_precision

    short = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    config = PrecisionConfig(mode=short, neuron_storage=short)
    return prepare_model_for_precision(model, "cuda", config).model


def snntorch(v_threshold: float) -> Layer:
    """Leaky with the reset in the step of the spike, as in ours, but not detached; it does not decay the input."""
    with contextlib.redirect_stdout(None):
        import snntorch
        from snntorch import surrogate
    cell = snntorch.Leaky(
        beta=0.5, threshold=v_threshold, reset_mechanism="zero", reset_delay=False, spike_grad=surrogate.atan(2.0)
    )

    def run(x_seq: Tensor) -> Tensor:
        cell.to(x_seq.device)
        mem, spikes = torch.zeros_like(x_seq[0]), []
        for x in x_seq:
            spike, mem = cell(x, mem)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def norse(v_threshold: float) -> Layer:
    """The neuron without synaptic current; dt * tau_mem_inv = 1/2."""
    from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step

    parameters = LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), v_th=torch.tensor(v_threshold))

    def run(x_seq: Tensor) -> Tensor:
        state, spikes = LIFBoxFeedForwardState(v=torch.zeros_like(x_seq[0])), []
        for x in x_seq:
            spike, state = lif_box_feed_forward_step(x, state, parameters, dt=0.001)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def sinabs(v_threshold: float) -> Layer:
    """One spike per step, exp(-1 / tau_mem) = 1/2. It takes [B, T, ...], as views without a copy."""
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.layers import LIF

    layer = LIF(
        tau_mem=1 / math.log(2),
        spike_threshold=torch.tensor(v_threshold),
        spike_fn=SingleSpike,
        reset_fn=MembraneReset(),
    ).requires_grad_(False)

    def run(x_seq: Tensor) -> Tensor:
        layer.to(x_seq.device).reset_states()
        return layer(x_seq.transpose(0, 1)).transpose(0, 1)

    return run
