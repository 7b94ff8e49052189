"""Batch norm and neuron as one layer, and helpers shared by all batch norm layers."""

from typing import Any

import torch
from torch import Tensor, nn

from ..ops import transforms
from ..ops.bn_lif.functional import fixed_lif
from ..ops.bn_lif.functional import run as run_bn_lif
from ..ops.bn_lif.reference import BatchNorm
from ..ops.lif.functional import check_inputs
from ..ops.lif.recurrence import Shape
from ..surrogate import UserSurrogate
from .neurons import LIF, PooledLIF
from .stateful import Stateful

NORM_OPTIONS = ("eps", "momentum", "affine", "track_running_stats")


def options_of(layer: nn.Module, *names: str) -> dict[str, Any]:
    """Return the attributes `names` of a layer, as keywords for another."""
    return {name: getattr(layer, name) for name in names}


def adopt(layer: nn.modules.batchnorm._BatchNorm, norm: nn.modules.batchnorm._BatchNorm) -> nn.Module:
    """Give `layer` the parameters and buffers of `norm` (the same objects), and its mode."""
    layer.weight, layer.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        setattr(layer, name, buffer)
    return layer.train(norm.training)


@torch.no_grad()
def track(layer: nn.modules.batchnorm._BatchNorm, mean: Tensor, var: Tensor, count: int | Tensor) -> None:
    """Update torch's running averages of the mean and the unbiased variance, if the layer has them. As in torch, an
    empty batch is counted but does not change the averages."""
    if not layer.track_running_stats:
        return
    # Each attribute is read once, because module attributes cost as much as the arithmetic.
    batches, running_mean, running_var = layer.num_batches_tracked, layer.running_mean, layer.running_var
    assert batches is not None
    assert running_mean is not None
    assert running_var is not None
    if transforms.active() and not transforms.wraps(running_mean):
        raise RuntimeError(
            "a batch norm layer in training mode cannot move its running averages under torch.func; call .eval(), make "
            "it with track_running_stats=False, or hand its buffers to the transformed function as arguments"
        )
    batches.add_(1)
    momentum: Any = 1.0 / float(batches) if layer.momentum is None else layer.momentum
    if isinstance(count, Tensor):
        momentum = torch.where(count > 0, momentum, 0.0).to(running_mean.dtype)
    elif count == 0:
        return
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_((var * (count / (count - 1))).to(running_var.dtype), momentum)


class BatchNormLIF(Stateful, nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over T, B and space, and `LIF`, as one operator. Parameters and buffers are torch's, so that
    checkpoints of the torch layer load unchanged."""

    dims: tuple[int, ...]  # allowed numbers of dimensions of x_seq
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
        alpha: Shape = 2.0,
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
        self.neuron = fixed_lif(**self.keywords)
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
        """Return (spikes, v_last), with v_seq if requested, from the statistics for this mode."""
        mean, var = (None, None) if self.training else (self.running_mean, self.running_var)
        *fired, batch_mean, batch_var = self._run(x_seq, self.weight, self.bias, mean, var)
        if self.training:
            track(self, batch_mean, batch_var, x_seq.numel() // self.num_features)
        return tuple(fired)

    def _run(
        self, x_seq: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None
    ) -> tuple[Tensor, ...]:
        norm = BatchNorm(weight, bias, mean, var, self.eps)
        return run_bn_lif(x_seq, self.carried(x_seq), norm, self.neuron, self.return_v, self.backend, self.pool)

    def lif(self) -> LIF:
        """Return the neurons alone, with their pooling, as a layer."""
        options: dict[str, Any] = {"return_v": self.return_v, "stateful": self.stateful, "backend": self.backend}
        return (LIF if self.pool == 1 else PooledLIF)(**self.keywords, **options)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pool={self.pool}, {self.lif().extra_repr()}"  # type: ignore[no-untyped-call]


class BatchNormLIF1d(BatchNormLIF, nn.BatchNorm1d):
    """nn.BatchNorm1d over steps and samples, then LIF, in one operator: x_seq [T, B, C] or [T, B, C, L] -> spikes.

    Args:
        num_features: C.
        eps, momentum, affine, track_running_stats: those of nn.BatchNorm1d; momentum=None averages all batches.
        others: keywords of `LIF`, floats only.

    state_dict is that of nn.BatchNorm1d. In training, and without running statistics, the layer uses the statistics of
    the batch over T and B. Half inputs are computed in float32, as are half parameters and running statistics, after
    .half() or .bfloat16(). After .double() the layer takes float64 inputs, which the reference serves.
    """

    dims = (3, 4)


class BatchNormLIF2d(BatchNormLIF, nn.BatchNorm2d):
    """nn.BatchNorm2d over steps and samples, then LIF, in one operator: x_seq [T, B, C, H, W] -> spikes.

    Arguments as for BatchNormLIF1d; `pool=2` averages the spikes over 2x2 pixels, [T, B, C, H // 2, W // 2], in the
    same operator. state_dict is that of nn.BatchNorm2d. See `convert_sync_batchnorm` for several processes, and
    `fuse_conv` for inference.
    """

    dims = (5,)
    pools = (1, 2)
