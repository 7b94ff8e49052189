"""Neuron layers: they map x_seq [T, B, ...] to spikes of the same shape."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.bn_lif.reference import average_pool
from ..ops.lif.functional import run
from ..ops.lif.recurrence import Parameter, Recurrence, Shape
from ..surrogate import UserSurrogate
from .stateful import Stateful


class MultiStepNeuron(Stateful, nn.Module):
    """Base of the neuron layers: parameters, the potential carried between calls, and the call itself.

    Stateless by default: every call starts at rest. See `Stateful` for `stateful=True`.

    Args:
        keywords: those of the neuron; a tensor among them becomes a parameter or buffer of the layer.
        return_v: return (spikes, v_seq) instead of spikes.
        stateful: keep v between calls.

    Raises:
        ValueError: a stateful layer gets a batch whose shape or device differs from those of its v.
        RuntimeError: a stateful layer runs under torch.func, or again in backward, as under torch.utils.checkpoint.
    """

    def __init__(self, keywords: dict[str, Any], return_v: bool, stateful: bool, backend: str) -> None:
        super().__init__()
        self.keywords = {name: value for name, value in keywords.items() if not isinstance(value, Tensor)}
        self.tensors = [name for name in keywords if name not in self.keywords]
        for name in self.tensors:
            if isinstance(keywords[name], nn.Parameter):
                self.register_parameter(name, keywords[name])
            else:
                self.register_buffer(name, keywords[name])
        self.return_v = return_v
        self.stateful = stateful
        self.backend = backend
        self.constant = None if self.tensors else self.make_neuron()
        self.neuron()  # raises for bad keywords now, not at the first call

    def make_neuron(self, **tensors: Any) -> Recurrence:
        """Return the parameters of the recurrence from the keywords; `tensors` are those that are tensors."""
        raise NotImplementedError

    def neuron(self) -> Recurrence:
        """Return the present parameters."""
        return self.constant or self.make_neuron(**{name: getattr(self, name) for name in self.tensors})

    def forward(self, x_seq: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        spikes, v_last, *v_seq = run(x_seq, self.carried(x_seq), self.neuron(), self.return_v, self.backend)
        self.carry(v_last)
        return (spikes, v_seq[0]) if self.return_v else spikes

    def extra_repr(self) -> str:
        shown = [f"{name}={value!r}" for name, value in self.keywords.items()]
        for name in self.tensors:
            tensor = getattr(self, name)
            shown.append(f"{name}={type(tensor).__name__}{list(tensor.shape)}")
        return f"{', '.join(shown)}, return_v={self.return_v}, stateful={self.stateful}, backend={self.backend!r}"


class LIF(MultiStepNeuron):
    """Leaky integrate-and-fire layer; keywords are those of `tmkt_kernels.lif`.

    tau, v_threshold and v_reset may be tensors. An nn.Parameter is learned, any other tensor becomes a buffer.
    `return_v=True` returns (spikes, v_seq); `stateful=True` carries v between calls until `reset()`.
    """

    def __init__(
        self,
        tau: Parameter = 2.0,
        decay_input: bool = True,
        v_threshold: Parameter = 1.0,
        v_reset: Parameter | None = 0.0,
        detach_reset: bool = True,
        surrogate: str | UserSurrogate = "atan",
        alpha: Shape = 2.0,
        *,
        return_v: bool = False,
        stateful: bool = False,
        backend: str = "auto",
    ) -> None:
        keywords = {
            "tau": tau,
            "decay_input": decay_input,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
            "surrogate": surrogate,
            "alpha": alpha,
        }
        super().__init__(keywords, return_v, stateful, backend)

    def make_neuron(self, **tensors: Any) -> Recurrence:
        return Recurrence.lif(**self.keywords, **tensors)


class PooledLIF(LIF):
    """LIF over space, then 2x2 averages of the spikes: a `BatchNormLIF2d` with pool=2, without its batch norm."""

    def forward(self, x_seq: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        outputs = super().forward(x_seq)
        if isinstance(outputs, tuple):
            return average_pool(outputs[0]), outputs[1]
        return average_pool(outputs)


class IF(LIF):
    """Integrate-and-fire layer, h = v + x: LIF with an infinite time constant. Keywords as for LIF, without tau."""

    def __init__(
        self,
        v_threshold: Parameter = 1.0,
        v_reset: Parameter | None = 0.0,
        detach_reset: bool = True,
        surrogate: str | UserSurrogate = "atan",
        alpha: Shape = 2.0,
        *,
        return_v: bool = False,
        stateful: bool = False,
        backend: str = "auto",
    ) -> None:
        options: dict[str, Any] = {"return_v": return_v, "stateful": stateful, "backend": backend}
        super().__init__(math.inf, True, v_threshold, v_reset, detach_reset, surrogate, alpha, **options)


class ParametricLIF(MultiStepNeuron):
    """LIF with a learned time constant, 1 / tau = sigmoid(w); Fang et al., ICCV 2021, arXiv 2007.05785, eq. 9.

    Args:
        init_tau: tau before training, above 1.
        channels: learn one tau for each of this number of channels (dim 2 of x_seq); None learns one for the layer.
        others: keywords of LIF.

    The parameter is `w`, as in SpikingJelly's ParametricLIFNode; `tau` is its present value.
    """

    def __init__(
        self,
        init_tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: Parameter = 1.0,
        v_reset: Parameter | None = 0.0,
        detach_reset: bool = True,
        surrogate: str | UserSurrogate = "atan",
        alpha: Shape = 2.0,
        *,
        channels: int | None = None,
        return_v: bool = False,
        stateful: bool = False,
        backend: str = "auto",
    ) -> None:
        if not (init_tau > 1 and math.isfinite(init_tau)):
            raise ValueError(f"init_tau: expected a finite time constant above 1 time step, got {init_tau}")
        w = torch.full(() if channels is None else (channels,), -math.log(init_tau - 1))
        keywords = {
            "w": nn.Parameter(w),
            "decay_input": decay_input,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
            "surrogate": surrogate,
            "alpha": alpha,
        }
        super().__init__(keywords, return_v, stateful, backend)

    w: nn.Parameter

    @property
    def tau(self) -> Tensor:
        return 1 / self.w.detach().sigmoid()

    def make_neuron(self, **tensors: Any) -> Recurrence:
        return Recurrence.lif(**self.keywords, rate=tensors.pop("w").sigmoid(), **tensors)


class Leaky(MultiStepNeuron):
    """snnTorch's Leaky neuron over a whole sequence; keywords are those of `tmkt_kernels.leaky`.

    Args:
        beta, threshold: floats or tensors; learned with `learn_beta`, `learn_threshold`, under snnTorch's names.
        return_v: return (spikes, mem_seq) instead of spikes.
        stateful: keep mem between calls, until `reset()`.
    """

    def __init__(
        self,
        beta: Parameter,
        threshold: Parameter = 1.0,
        reset_mechanism: str = "subtract",
        surrogate: str | UserSurrogate = "atan",
        alpha: Shape = 2.0,
        *,
        learn_beta: bool = False,
        learn_threshold: bool = False,
        return_v: bool = False,
        stateful: bool = False,
        backend: str = "auto",
    ) -> None:
        def learned(value: Parameter) -> nn.Parameter:
            return nn.Parameter(torch.as_tensor(value, dtype=torch.float32))

        keywords = {
            "beta": learned(beta) if learn_beta else beta,
            "threshold": learned(threshold) if learn_threshold else threshold,
            "reset_mechanism": reset_mechanism,
            "surrogate": surrogate,
            "alpha": alpha,
        }
        super().__init__(keywords, return_v, stateful, backend)

    def make_neuron(self, **tensors: Any) -> Recurrence:
        return Recurrence.leaky(**self.keywords, **tensors)
