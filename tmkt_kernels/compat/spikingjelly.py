"""SpikingJelly 2.0.0: IFNode, LIFNode and ParametricLIFNode, in multi-step and single-step mode."""

import math
from collections.abc import Callable
from typing import Any

import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor

from ..ops.lif.recurrence import Recurrence
from .deferral import received
from .replacement import AcceleratedNeuron, made

Shape = float | tuple[float, float]
SURROGATES: dict[type, tuple[str, Callable[[Any], Shape]]] = {
    surrogate.ATan: ("atan", lambda f: f.alpha),
    surrogate.Sigmoid: ("sigmoid", lambda f: f.alpha),
    surrogate.PiecewiseQuadratic: ("triangle", lambda f: f.alpha),
    surrogate.Rect: ("rectangle", lambda f: f.alpha),
    surrogate.PiecewiseExp: ("exponential", lambda f: f.alpha),
    surrogate.SoftSign: ("soft_sign", lambda f: f.alpha),
    surrogate.SuperSpike: ("super_spike", lambda f: f.alpha),
    surrogate.Erf: ("erf", lambda f: f.alpha),
    surrogate.NonzeroSignLogAbs: ("log", lambda f: f.alpha),
    surrogate.PiecewiseLeakyReLU: ("leaky_rectangle", lambda f: (1 / (2 * f.w), f.c)),
    surrogate.SquarewaveFourierSeries: ("fourier", lambda f: (1 / f.T_period, f.n - 1)),
    surrogate.S2NN: ("s2nn", lambda f: (f.alpha, f.beta)),
    surrogate.QPseudoSpike: ("q_pseudo_spike", lambda f: f.alpha),
    surrogate.LeakyKReLU: ("leaky_relu", lambda f: (f.k, f.leak)),
    surrogate.FakeNumericalGradient: ("inverse", lambda f: f.alpha),
    surrogate.LogTailedReLU: ("log_tailed_relu", lambda f: f.alpha),
    surrogate.DeterministicPass: ("straight_through", lambda f: 1.0),
}
"""Our name for each of SpikingJelly's surrogates, and our alpha from its attributes; see docs/surrogates.md."""


class AcceleratedNode(AcceleratedNeuron, neuron.BaseNode):
    """Base of the three nodes: SpikingJelly's state handling around our recurrence.

    On half inputs v is float32 and stays unrounded from call to call; v_seq has the input's dtype, as before.
    """

    compiles = True

    @classmethod
    def problem(cls, module: Any) -> str | None:
        function = module.surrogate_function
        if type(function) not in SURROGATES:
            return f"surrogate {type(function).__name__} has no equal here"
        if not function.spiking:
            return "the surrogate is in its primitive mode (spiking=False): the output is no spike"
        if not all(isinstance(value, (int, float)) for value in function._sg_params.values()):
            return "the surrogate's parameters are not plain numbers"
        if module._neuron_precision is not None:
            return "SpikingJelly's precision API was used on it"
        keywords = cls.keywords(module)
        tensors = [name for name, value in keywords.items() if isinstance(value, Tensor)]
        return f"{tensors[0]} is a tensor" if tensors else made(Recurrence.lif, **keywords)[1]

    @classmethod
    def keywords(cls, module: Any) -> dict[str, Any]:
        """Return our keywords for the parameters that are plain numbers in SpikingJelly."""
        name, shape = SURROGATES[type(module.surrogate_function)]
        return {
            "v_threshold": module.v_threshold,
            "v_reset": module.v_reset,
            "detach_reset": module.detach_reset,
            "surrogate": name,
            "alpha": shape(module.surrogate_function),
        }

    def neuron(self) -> Recurrence:
        return made(Recurrence.lif, **self.keywords(self))[0]

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Any:
        x, work = received(x_seq, self)
        if args or kwargs or x.dim() < 2 or not (work or self.serves(x)):
            return super().multi_step_forward(x_seq, *args, **kwargs)
        spikes, self.v, *h = self.run(x, self._state(x, "m"), self.store_v_seq, work=work)
        if self.store_v_seq:
            self.v_seq = self._after_reset(spikes, h[0])
        return spikes

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        now, work = received(x, self)
        if args or kwargs or now.dim() < 1 or not (work or self.serves(now)):
            return super().single_step_forward(x, *args, **kwargs)
        spikes, self.v = self.run(now[None], self._state(now, "s"), work=work)
        if self.store_v_seq:
            self._append_v_seq(self.v.to(now.dtype))
        return spikes[0]

    def _state(self, x: Tensor, step_mode: str) -> Tensor | None:
        """Return v before the first step; None if the neurons are at rest."""
        if isinstance(self.v, float) and self.v == (self.v_reset or 0.0):
            return None
        if x.dtype != torch.float32:  # v would be rounded to x's dtype
            x = x.new_empty((), dtype=torch.float32).expand(x.shape)
        return self.materialize_states((x,), (self.v,), step_mode)[0]

    def _after_reset(self, spikes: Tensor, h: Tensor) -> Tensor:
        """Return SpikingJelly's v_seq: the potential after the reset, differentiable like SpikingJelly's own."""
        fired = spikes.detach() if self.detach_reset else spikes
        return h - fired * self.v_threshold if self.v_reset is None else fired * self.v_reset + (1 - fired) * h


class AcceleratedIFNode(AcceleratedNode, neuron.IFNode):
    replaces = neuron.IFNode

    @classmethod
    def keywords(cls, module: Any) -> dict[str, Any]:
        return super().keywords(module) | {"tau": math.inf}


class AcceleratedLIFNode(AcceleratedNode, neuron.LIFNode):
    replaces = neuron.LIFNode

    @classmethod
    def keywords(cls, module: Any) -> dict[str, Any]:
        return super().keywords(module) | {"tau": module.tau, "decay_input": module.decay_input}


class AcceleratedParametricLIFNode(AcceleratedNode, neuron.ParametricLIFNode):
    replaces = neuron.ParametricLIFNode

    @classmethod
    def keywords(cls, module: Any) -> dict[str, Any]:
        return super().keywords(module) | {"decay_input": module.decay_input}

    def neuron(self) -> Recurrence:
        return Recurrence.lif(rate=self.w.float().sigmoid(), **self.keywords(self))

    def fusion_problem(self) -> str | None:
        return "batch norm before a ParametricLIFNode: bn_lif takes no learned tau"


STAND_INS = {c.replaces: c for c in (AcceleratedIFNode, AcceleratedLIFNode, AcceleratedParametricLIFNode)}
BATCH_NORMS = {layer.BatchNorm1d, layer.BatchNorm2d}
NEURONS = (neuron.BaseNode, neuron.SimpleBaseNode)
