"""Layers on the fused operators. They map x_seq [T, B, ...] to spikes of the same shape."""

import copy
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from . import _transforms
from ._batch_norm import (
    NORM_OPTIONS,
    SyncBatchNorm,
    adopt,
    options_of,
    processes,
    synchronisation_problem,
    synchronise,
    track,
)
from .bn_lif import run as run_bn_lif
from .bn_lif.reference import average_pool
from .lif import Neuron, Parameter, check_inputs, lif_neuron, lif_params, run
from .lif.leaky import leaky_neuron
from .mixup import time_step_mixup
from .surrogate import UserSurrogate

__all__ = [
    "IF",
    "LIF",
    "BatchNormLIF1d",
    "BatchNormLIF2d",
    "Leaky",
    "ParametricLIF",
    "PerStep",
    "SyncBatchNorm",
    "SyncBatchNormLIF",
    "TimeStepMixup",
    "convert",
    "convert_sync_batchnorm",
    "fuse_conv",
]


def _recomputation() -> tuple[int, int] | None:
    """Which call is being made again in backward, by the pass and the node that asked for it; None outside of one."""
    node = torch._C._current_autograd_node()
    return None if node is None else (torch._C._current_graph_task_id(), node._sequence_nr())


class Stateful:
    """The potential that a layer with `stateful=True` carries from call to call, detached from the graph of the call
    before, until `reset()`. It never enters state_dict."""

    stateful: bool
    v: Tensor | None = None
    _reset_in: tuple[int, int] | None = None  # the recomputation under way at the last reset

    def reset(self) -> None:
        """Forget the membrane potential: the next call starts at rest."""
        self.v = None
        if not torch.compiler.is_compiling():
            self._reset_in = _recomputation()

    def carried(self, x_seq: Tensor) -> Tensor | None:
        """v to start this call with; None is rest.

        Raises:
            ValueError: it belongs to a batch of another shape or device.
            RuntimeError: torch runs this call where v is not that of its place in the sequence: under torch.func, or a
                second time in backward, as torch.utils.checkpoint does.
        """
        if not self.stateful:
            return None
        if _transforms.active():
            raise RuntimeError(
                "a stateful layer cannot run under torch.func, which would keep v beyond its transform; "
                "use stateful=False, or tmkt_kernels.lif or leaky, which take v and return it"
            )
        again = None if torch.compiler.is_compiling() else _recomputation()
        if again is not None and self._reset_in != again:
            raise RuntimeError(
                "a stateful layer is run again in backward, as under torch.utils.checkpoint, and its v has moved on; "
                "use stateful=False, call reset() inside the checkpointed function, or leave the layer out of it"
            )
        v = self.v
        if v is None:
            return None
        check_inputs(x_seq)
        if v.shape != x_seq.shape[1:] or v.device != x_seq.device:
            raise ValueError(
                f"x_seq: this stateful layer holds v for a batch of shape {tuple(v.shape)} on {v.device}, "
                f"got {tuple(x_seq.shape[1:])} on {x_seq.device}; call reset() between sequences"
            )
        return v.clone() if v.is_inference() and not torch.is_inference_mode_enabled() else v

    def carry(self, v_last: Tensor) -> None:
        """Keep v for the next call."""
        if self.stateful:
            self.v = v_last.detach()


class MultiStepNeuron(Stateful, nn.Module):
    """What the neuron layers share: parameters, the potential that is carried between calls, and the call.

    Stateless by default: every call starts at rest. See `Stateful` for `stateful=True`.

    Args:
        keywords: those of the neuron; a tensor among them becomes a parameter or buffer of the layer.
        return_v: return (spikes, v_seq) instead of spikes.
        stateful: keep v between calls.

    Raises:
        ValueError: a stateful layer gets a batch of another shape or device than the one it holds v for.
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
        self.neuron()  # bad keywords are errors here, not at the first call

    def make_neuron(self, **tensors: Any) -> Neuron:
        """The parameters of the recurrence from the keywords, of which `tensors` are those that are tensors."""
        raise NotImplementedError

    def neuron(self) -> Neuron:
        """The parameters as they are now."""
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

    tau, v_threshold and v_reset may be tensors: an nn.Parameter among them is learned, another becomes a buffer.
    `return_v=True` gives (spikes, v_seq); `stateful=True` carries v between calls until `reset()`.
    """

    def __init__(
        self,
        tau: Parameter = 2.0,
        decay_input: bool = True,
        v_threshold: Parameter = 1.0,
        v_reset: Parameter | None = 0.0,
        detach_reset: bool = True,
        surrogate: str | UserSurrogate = "atan",
        alpha: float | tuple[float, float] = 2.0,
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

    def make_neuron(self, **tensors: Any) -> Neuron:
        return lif_neuron(**self.keywords, **tensors)


class PooledLIF(LIF):
    """LIF over space, then the average of the spikes over 2x2 pixels: a `BatchNormLIF2d` with pool=2 without its batch
    norm."""

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
        alpha: float | tuple[float, float] = 2.0,
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
        channels: learn one tau for each of so many channels (dim 2 of x_seq); None learns one for the layer.
        others: keywords of LIF.

    The parameter is `w`, as SpikingJelly's ParametricLIFNode names it; `tau` is its present value.
    """

    def __init__(
        self,
        init_tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: Parameter = 1.0,
        v_reset: Parameter | None = 0.0,
        detach_reset: bool = True,
        surrogate: str | UserSurrogate = "atan",
        alpha: float | tuple[float, float] = 2.0,
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

    def make_neuron(self, **tensors: Any) -> Neuron:
        return lif_neuron(**self.keywords, rate=tensors.pop("w").sigmoid(), **tensors)


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
        alpha: float | tuple[float, float] = 2.0,
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

    def make_neuron(self, **tensors: Any) -> Neuron:
        return leaky_neuron(**self.keywords, **tensors)


class _BatchNormLIF(Stateful, nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over T, B and space, and `LIF`, as one operator; parameters and buffers are torch's, so that
    checkpoints of the torch layer load as they are."""

    dims: tuple[int, ...]  # that x_seq may have
    pools: tuple[int, ...] = (1,)

    def __init__(
        self,
        num_features: int,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        surrogate: str | UserSurrogate = "atan",
        alpha: float | tuple[float, float] = 2.0,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        pool: int = 1,
        return_v: bool = False,
        stateful: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        if pool not in self.pools:
            raise ValueError(f"pool: expected {' or '.join(map(str, self.pools))}, got {pool}")
        self.keywords: dict[str, Any] = {
            "tau": tau,
            "decay_input": decay_input,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
            "surrogate": surrogate,
            "alpha": alpha,
        }
        self.params = lif_params(**self.keywords)
        self.return_v, self.stateful, self.backend, self.pool = return_v, stateful, backend, pool

    def forward(self, x_seq: Tensor) -> Any:
        check_inputs(x_seq)
        if x_seq.dim() not in self.dims or x_seq.shape[2] != self.num_features:
            raise ValueError(
                f"x_seq: expected [T, B, {self.num_features}, ...] with {' or '.join(map(str, self.dims))} dimensions, "
                f"got shape {tuple(x_seq.shape)}"
            )
        spikes, v_last, *v_seq = self._fire(x_seq)
        self.carry(v_last)
        return (spikes, v_seq[0]) if self.return_v else spikes

    def _fire(self, x_seq: Tensor) -> tuple[Tensor, ...]:
        """(spikes, v_last), or with v_seq, by the statistics that training mode asks for."""
        mean, var = (None, None) if self.training else (self.running_mean, self.running_var)
        *fired, batch_mean, batch_var = self._run(x_seq, self.weight, self.bias, mean, var)
        if self.training:
            track(self, batch_mean, batch_var, x_seq.numel() // self.num_features)
        return tuple(fired)

    def _run(
        self, x_seq: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None
    ) -> tuple[Tensor, ...]:
        options = (self.eps, self.params, self.return_v, self.backend, self.pool)
        return run_bn_lif(x_seq, weight, bias, self.carried(x_seq), mean, var, *options)

    def lif(self) -> LIF:
        """The neurons alone, and their pooling, as a layer."""
        options: dict[str, Any] = {"return_v": self.return_v, "stateful": self.stateful, "backend": self.backend}
        return (LIF if self.pool == 1 else PooledLIF)(**self.keywords, **options)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pool={self.pool}, {self.lif().extra_repr()}"  # type: ignore[no-untyped-call]


class BatchNormLIF1d(_BatchNormLIF, nn.BatchNorm1d):
    """nn.BatchNorm1d over steps and samples, then LIF, in one operator: x_seq [T, B, C] or [T, B, C, L] -> spikes.

    Args:
        num_features: C.
        eps, momentum, affine, track_running_stats: those of nn.BatchNorm1d; momentum=None averages all batches.
        others: keywords of `LIF`, floats only.

    state_dict is that of nn.BatchNorm1d. In training and without running statistics those of the batch are used, taken
    over T and B. Half inputs are computed in float32, as are half parameters and running statistics, after .half() or
    .bfloat16(); after .double() the layer takes float64 inputs, which the reference serves.
    """

    dims = (3, 4)


class BatchNormLIF2d(_BatchNormLIF, nn.BatchNorm2d):
    """nn.BatchNorm2d over steps and samples, then LIF, in one operator: x_seq [T, B, C, H, W] -> spikes.

    Arguments as for BatchNormLIF1d; `pool=2` averages the spikes over 2x2 pixels, [T, B, C, H // 2, W // 2], in the
    same operator. state_dict is that of nn.BatchNorm2d. For several processes see `convert_sync_batchnorm`, for
    inference `fuse_conv`.
    """

    dims = (5,)
    pools = (1, 2)


class SyncBatchNormLIF(_BatchNormLIF):
    """What `convert_sync_batchnorm` makes of a BatchNormLIF layer: the same operator, in training with the statistics
    of the batches of all processes. state_dict is unchanged."""

    pools = (1, 2)

    def __init__(self, layer: _BatchNormLIF, process_group: Any = None) -> None:
        options = options_of(layer, *NORM_OPTIONS, "pool", "return_v", "stateful", "backend")
        super().__init__(layer.num_features, **layer.keywords, **options)
        self.dims, self.process_group = layer.dims, process_group
        adopt(self, layer)

    def _fire(self, x_seq: Tensor) -> tuple[Tensor, ...]:
        if not self.training or processes(self.process_group) == 1:
            return super()._fire(x_seq)
        both = synchronise(x_seq, self.weight, self.bias, eps=self.eps, dim=2, group=self.process_group)
        track(self, both.mean, both.var, both.size)
        *fired, _, _ = self._run(both.x, both.weight, both.bias, both.mean, both.var)
        return tuple(fired)


def convert_sync_batchnorm(model: nn.Module, process_group: Any = None) -> nn.Module:
    """Let the batch norms of a model, BatchNormLIF layers too, take their statistics over all processes of the group.

    nn.SyncBatchNorm.convert_sync_batchnorm puts a batch norm without neurons in the place of BatchNormLIF layers, and
    serves no CPU: use this one. Parameters, buffers and state_dict are kept; changes the model, and returns it.
    SpikingJelly's batch norms keep their step mode.

    Raises:
        TypeError: a batch norm with a forward of its own, named; the model is as it was.
    """
    for path, module in model.named_modules():
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, _BatchNormLIF)
        if norm and (why := synchronisation_problem(module)) is not None:
            raise TypeError(f"convert_sync_batchnorm: {path or 'the model'}: {why}")
    return _synchronised(model, process_group)


def _synchronised(module: nn.Module, process_group: Any) -> nn.Module:
    if isinstance(module, _BatchNormLIF):
        return SyncBatchNormLIF(module, process_group)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return SyncBatchNorm(module, process_group)
    for name, child in list(module._modules.items()):  # by each of its names
        if child is not None:
            setattr(module, name, _synchronised(child, process_group))
    return module


def fuse_conv(conv: nn.Conv1d | nn.Conv2d, layer: _BatchNormLIF) -> tuple[nn.Module, LIF]:
    """For inference: (conv with the batch norm folded into weight and bias, the neurons), copies of both.

    Raises:
        ValueError: the layer is in training mode, or has no running statistics.
    """
    if layer.training or conv.training or layer.running_mean is None:
        raise ValueError("fuse_conv: expected layers in eval mode, with running statistics; call model.eval() first")
    return nn.utils.fuse_conv_bn_eval(conv, layer), layer.lif()


def convert(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """Fuse each batch norm over a sequence with the LIF or IF layer right after it, in a copy of the model.

    Found in nn.Sequential: a subclass of nn.BatchNorm1d or 2d that takes [T, B, C, ...], known by `step_mode == "m"` as
    in SpikingJelly, followed by `LIF` or `IF` with float parameters. A pair with hooks is left alone, for they would
    be lost. Parameters, buffers and training mode are kept; keys in state_dict too, but for the neuron's place
    in the chain, which becomes nn.Identity.

    Returns:
        The copy, and a line for each pair that says what was done.
    """
    model = copy.deepcopy(model)
    report = []
    for path, chain in model.named_modules():
        if not isinstance(chain, nn.Sequential):
            continue
        names = list(chain._modules)
        for first, second in itertools.pairwise(names):
            norm, neuron = chain._modules[first], chain._modules[second]
            fused = BatchNormLIF2d if isinstance(norm, nn.BatchNorm2d) else BatchNormLIF1d
            if not isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)) or getattr(norm, "step_mode", None) != "m":
                continue
            if not isinstance(neuron, LIF) or neuron.tensors:
                continue
            where = " + ".join(f"{path}.{name}" if path else name for name in (first, second))
            if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in (norm, neuron)):
                report.append(f"{where}: left alone, it has hooks")
                continue
            options = options_of(norm, *NORM_OPTIONS) | options_of(neuron, "return_v", "stateful", "backend")
            layer = adopt(fused(norm.num_features, **neuron.keywords, **options), norm)
            chain._modules[first], chain._modules[second] = layer, nn.Identity()
            report.append(f"{where}: fused into {fused.__name__}")
    return model, report


SPIKING_LAYERS = (MultiStepNeuron, _BatchNormLIF, SyncBatchNormLIF)
"""Types of the layers here that give spikes."""


class PerStep(nn.Sequential):
    """Layers without memory of their own, such as a convolution, applied to each step as to one batch of T * B samples.

    x_seq [T, B, ...] -> [T, B, ...].

    Raises:
        ValueError: x_seq has fewer than two dimensions.
    """

    def forward(self, x_seq: Tensor) -> Tensor:
        if x_seq.dim() < 2:
            raise ValueError(f"PerStep: x_seq: expected [T, B, ...], got {list(x_seq.shape)}")
        y = x_seq.flatten(0, 1)
        for layer in self:
            y = layer(y)
        return y.view(x_seq.shape[:2] + y.shape[1:])


class TimeStepMixup(nn.Module):
    """`tmkt_kernels.time_step_mixup` as a layer, with its scale, dtype and backend fixed.

    Args:
        scale: one factor for both streams, or (static_scale, event_scale).
        dtype: of the mixed sequence; None promotes the float inputs, float32 if there is none.
        backend: "auto", "native", "triton" or "reference".
    """

    def __init__(
        self,
        scale: float | tuple[float, float] = 1.0,
        dtype: torch.dtype | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.scale, self.dtype, self.backend = scale, dtype, backend

    def forward(
        self,
        static: Tensor,
        events: Tensor,
        switch_step: Tensor,
        static_index: Tensor | None = None,
        event_index: Tensor | None = None,
    ) -> Tensor:
        return time_step_mixup(
            static,
            events,
            switch_step,
            static_index=static_index,
            event_index=event_index,
            scale=self.scale,
            dtype=self.dtype,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"scale={self.scale}, dtype={self.dtype}, backend={self.backend!r}"
