"""snnTorch 1.0.0: Leaky, step by step in the user's own loop, or the whole sequence at once with `over_time`."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from snntorch import Leaky, SpikingNeuron
from torch import Tensor, nn

from ..ops.lif.recurrence import Parameter, Recurrence
from .deferral import Deferral, has_hooks, received
from .replacement import AcceleratedNeuron, made, number

Shape = float | tuple[float, float]
SURROGATES: dict[str, tuple[str, Callable[[dict[str, Any]], Shape]]] = {
    "atan": ("atan", lambda v: v["alpha"]),
    "sigmoid": ("sigmoid", lambda v: v["slope"]),
    "fast_sigmoid": ("fast_sigmoid", lambda v: v["slope"]),
    "straight_through_estimator": ("straight_through", lambda v: 1.0),
    "triangular": ("tent", lambda v: v["threshold"]),
    "heaviside": ("leaky_relu", lambda v: (1.0, 0.0)),
    "spike_rate_escape": ("spike_rate_escape", lambda v: (v["slope"], v["beta"])),
    "SFS": ("sparse_fast_sigmoid", lambda v: (v["slope"], v["B"])),
}
"""Our name for each of snnTorch's surrogates, and our alpha from the values in its closure; see docs/surrogates.md."""


@functools.lru_cache(maxsize=256)  # called at every step
def _surrogate(function: Any) -> tuple[str, Shape] | None:
    """Return (name, alpha) of one of snnTorch's closures; None for any other function."""
    maker = getattr(function, "__qualname__", "").split(".")[0]
    if getattr(function, "__module__", "") != "snntorch.surrogate" or maker not in SURROGATES:
        return None
    name, shape = SURROGATES[maker]
    values = dict(inspect.getclosurevars(function).nonlocals)
    return (name, shape(values)) if all(isinstance(v, (int, float)) for v in values.values()) else None


class AcceleratedLeaky(AcceleratedNeuron, Leaky):
    """snnTorch's Leaky on our recurrence. `.reset`, a scratch value of snnTorch's step, is not written.

    On half inputs snnTorch's spikes and `mem` are float32, and so are these. With reset_mechanism="none" its `mem` may
    be half, which our recurrence does not keep, so snnTorch serves those inputs.
    """

    replaces = Leaky
    mem: Tensor

    @classmethod
    def problem(cls, module: Any) -> str | None:
        if _surrogate(module.spike_grad) is None:
            return f"surrogate {getattr(module.spike_grad, '__qualname__', module.spike_grad)} has no equal here"
        for option, plain in {"reset_delay": True, "inhibition": False, "state_quant": False}.items():
            if getattr(module, option) != plain:
                return f"{option}={getattr(module, option)}"
        factor = module.graded_spikes_factor
        if factor.requires_grad or factor.numel() > 1 or number(module, "graded_spikes_factor") != 1:
            return "graded spikes: the output is not 0 or 1"
        if max(module.beta.dim(), module.threshold.dim()) > 1:
            return "beta or threshold has more than one dimension"
        numbers = {
            name: 0.5 if isinstance(value, Tensor) else value for name, value in cls.beta_and_threshold(module).items()
        }
        return made(Recurrence.leaky, **numbers, **cls.keywords(module))[1]

    @classmethod
    def beta_and_threshold(cls, module: Any) -> dict[str, Any]:
        return {"beta": _parameter(module.beta, clamp=True), "threshold": _parameter(module.threshold)}

    @classmethod
    def keywords(cls, module: Any) -> dict[str, Any]:
        found = _surrogate(module.spike_grad)
        assert found is not None
        return {"reset_mechanism": module.reset_mechanism, "surrogate": found[0], "alpha": found[1]}

    def neuron(self) -> Recurrence:
        parameters, keywords = self.beta_and_threshold(self), self.keywords(self)
        if any(isinstance(value, Tensor) for value in parameters.values()):
            return Recurrence.leaky(**parameters, **keywords)
        return made(Recurrence.leaky, **parameters, **keywords)[0]

    def fusion_problem(self) -> str | None:
        if self.beta.requires_grad or self.threshold.requires_grad or self.beta.numel() + self.threshold.numel() > 2:
            return "batch norm before a Leaky with learned or several beta or threshold: bn_lif takes plain numbers"
        return None if self.beta.device.type == "cpu" else "batch norm before a Leaky: beta would be read from the GPU"

    def serves(self, x: Tensor) -> bool:
        """Return whether we serve x. Several values of beta belong to the last dimension, which agrees with ours only
        in [B, C]."""
        if x.dtype != torch.float32 and self.reset_mechanism == "none":
            return False
        return super().serves(x) and (x.dim() == 2 or max(self.beta.numel(), self.threshold.numel()) == 1)

    def forward(self, input_: Tensor, mem: Tensor | None = None) -> Any:
        x, work = received(input_, self)
        if x.dim() < 1 or not (work or self.serves(x)) or (self.init_hidden and mem is not None):
            return super().forward(input_, mem)
        spikes, _ = self._steps(x[None], mem, work=work)
        return spikes[0] if self.init_hidden and not self.output else (spikes[0], self.mem)

    def over_time(self, x_seq: Tensor, mem: Tensor | None = None, *, every_mem: bool = True) -> tuple[Tensor, Tensor]:
        """Run all steps at once: x_seq [T, B, ...] -> spikes [T, B, ...] and mem, [T, B, ...] or the last, [B, ...].

        Equals a loop over `forward`, and is such a loop where we cannot serve this layer; `mem` is kept as there.
        """
        if self.serves(x_seq[0]):
            return self._steps(x_seq, mem, every_mem)
        spikes: list[Tensor] = []
        mem_seq: list[Tensor] = []
        for x in x_seq:
            output = super().forward(x, None if spikes or self.init_hidden else mem)
            spikes.append(output[0] if isinstance(output, tuple) else output)
            mem_seq.append(self.mem)
        return torch.stack(spikes), torch.stack(mem_seq) if every_mem else mem_seq[-1]

    def _steps(
        self, x_seq: Tensor, mem: Tensor | None, every_mem: bool = False, work: Deferral | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return snnTorch's state (`mem` of the previous call, or zeros for another shape) and our recurrence."""
        before = self.mem if mem is None else mem
        if before.shape != x_seq.shape[1:]:
            before = torch.zeros_like(x_seq[0])
        spikes, self.mem, *mem_seq = self.run(x_seq, before, every_mem, torch.float32, work)
        return spikes, mem_seq[0] if every_mem else self.mem


def _parameter(tensor: Tensor, clamp: bool = False) -> Parameter:
    """Return a number where reading it is free. snnTorch clamps beta at every step; `leaky` does so for tensors."""
    if tensor.requires_grad or tensor.numel() > 1 or tensor.device.type != "cpu":
        return tensor
    value = float(tensor)
    return min(max(value, 0.0), 1.0) if clamp else value


SAMPLE_WISE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.ReLU,
    nn.Identity,
)
"""Layers that treat every sample alike, so that they can take all steps as one batch."""


def over_time(net: nn.Sequential, x_seq: Tensor) -> tuple[Tensor, Tensor]:
    """Run snnTorch's usual `nn.Sequential` over a whole sequence, layer by layer instead of step by step.

    The same as `for step in x_seq: spikes, mem = net(step)` with `init_hidden=True` in every Leaky and `output=True` in
    the last: each layer processes all its steps before the next layer begins. Layers without time take [T * B, ...] at
    once if they treat samples alike. All others, such as batch norm, go step by step.

    Args:
        net: layers without time and accelerated Leaky layers, of which one is last.
        x_seq: [T, B, ...].

    Returns:
        spikes and mem of the last layer for every step, [T, B, ...] each.

    Raises:
        TypeError, ValueError: a net for which this does not hold, with the layer's name.
    """
    if not isinstance(net, nn.Sequential) or not len(net) or not isinstance(net[-1], AcceleratedLeaky):
        raise TypeError("net: expected an nn.Sequential that ends in a Leaky; call tmkt_kernels.accelerate(net) first")
    mem_seq = x_seq
    for name, layer in net.named_children():
        if isinstance(layer, AcceleratedLeaky) and layer.init_hidden and not has_hooks(layer):
            x_seq, mem_seq = layer.over_time(x_seq, every_mem=layer is net[-1])
            continue
        if any(isinstance(m, SpikingNeuron) for m in layer.modules()):
            raise TypeError(
                f"net.{name}: expected a layer without state, or an accelerated Leaky with init_hidden=True "
                f"and no hooks; got {type(layer).__name__}"
            )
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.training and layer.p > 0:
            raise ValueError(f"net.{name}: dropout draws in the order of the steps; call net.eval(), or keep the loop")
        flatten = isinstance(layer, nn.Flatten) and layer.start_dim == 1
        if flatten or type(layer) in SAMPLE_WISE:
            x_seq = layer(x_seq.flatten(0, 1)).unflatten(0, x_seq.shape[:2])
        else:
            x_seq = torch.stack([layer(x) for x in x_seq])  # batch norm too, whose statistics are those of a step
    return x_seq, mem_seq


STAND_INS = {Leaky: AcceleratedLeaky}
BATCH_NORMS: set[type] = set()
NEURONS = (SpikingNeuron,)
