"""Batch norms with statistics over several processes.

Our operator treats mean and variance as constants. Across processes they depend on the input, so `synchronise` adds
that part of the gradient in front of the operator. Fused operators thus serve several processes, on any device of
torch.distributed.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..ops import transforms
from .batch_norm import NORM_OPTIONS, BatchNormLIF, adopt, options_of, track


class Synchronised(NamedTuple):
    """The operator's inputs, and the statistics [C] of all processes' batches, from `size` values each."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    size: Tensor


def processes(group: Any = None) -> int:
    """Return the number of processes that share a batch; 1 if torch.distributed is not in use."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def synchronise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float, dim: int, group: Any = None
) -> Synchronised:
    """Compute statistics (biased variance) of x per channel over the batches of all processes, differentiable in `x`.

    Args:
        x: this process's batch, channels at `dim`.
        weight, bias: [C], None for 1 and 0.
        eps: added to the variance by the operator.
        group: process group; None is the default one. All its processes must call, in the same order.

    Returns:
        x, weight and bias to pass to the operator together with mean and var. Their gradients are those of the sum of
        all processes' losses, as in torch.nn.SyncBatchNorm; weight and bias get this process's part of it.
    """
    if transforms.active():
        raise RuntimeError(
            "batch norm over several processes cannot run under torch.func, whose sums are of one process"
        )
    dims = [d for d in range(x.dim()) if d != dim]
    with torch.no_grad():
        var, mean = torch.var_mean(x.to(torch.promote_types(x.dtype, torch.float32)), dims, correction=0)
        if x.numel() == 0:
            var, mean = torch.zeros_like(var), torch.zeros_like(mean)  # not NaN, which would reach all processes
        own = torch.cat([mean, var, mean.new_full((1,), 0)]).double()
        own[-1] = x.numel() // x.shape[dim]
        every = [torch.empty_like(own) for _ in range(processes(group))]
        dist.all_gather(every, own, group)
        means, vars, counts = torch.split(torch.stack(every), [x.shape[dim], x.shape[dim], 1], dim=1)
        count = counts.sum()
        some = count.clamp(min=1)
        mean = (counts * means).sum(0) / some
        var = (counts * (vars + (means - mean).square())).sum(0) / some
        mean, var = (s.to(torch.promote_types(x.dtype, torch.float32)) for s in (mean, var))
    weight = torch.ones_like(mean).requires_grad_() if weight is None else weight.to(mean.dtype)
    bias = torch.zeros_like(mean).requires_grad_() if bias is None else bias.to(mean.dtype)
    x, weight, bias = _ThroughStatistics.apply(x, weight, bias, mean, var, count, eps, dim, group)
    return Synchronised(x, weight, bias, mean, var, count)


class _ThroughStatistics(torch.autograd.Function):
    """Identity on x, weight and bias; backward adds the gradient through mean and var to dL/dx.

    With g = dL/dcurrent and x_hat = (x - mean) / sqrt(var + eps), that is -weight / sqrt(var + eps) / n
    (sum g + x_hat sum g x_hat), with sums over all processes (Ioffe and Szegedy, 2015, arXiv 1502.03167). The
    two sums are the gradients of bias and weight, which the operator behind has just computed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *statistics: Any) -> tuple[Tensor, ...]:
        mean, var, count, *ctx.settings = statistics
        ctx.save_for_backward(x, weight, mean, var, count)  # the operator keeps the same x
        return x.view_as(x), weight.view_as(weight), bias.view_as(bias)

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, count = ctx.saved_tensors
        eps, dim, group = ctx.settings
        sums = torch.stack([grad_weight, grad_bias])
        dist.all_reduce(sums, group=group)
        rate = torch.rsqrt(var + eps)
        scale = weight * rate / count.to(rate.dtype)
        slope, offset, mean = (
            values.view([-1 if d == dim else 1 for d in range(x.dim())])
            for values in (scale * rate * sums[0], scale * sums[1], mean)
        )
        through = torch.addcmul(offset, x.to(offset.dtype) - mean, slope)
        return (grad_x - through).to(x.dtype), grad_weight, grad_bias, *[None] * 6


SPIKINGJELLY = "spikingjelly.activation_based.layer.bn"
FOLDING = {f"{kind}{n}d" for kind in ("BatchNorm", "ThresholdDependentBatchNorm") for n in (1, 2, 3)}
"""SpikingJelly's batch norms that equal torch's on steps and samples as one batch if their `step_mode` is "m"."""


def synchronisation_problem(norm: nn.modules.batchnorm._BatchNorm) -> str | None:
    """Return why a `SyncBatchNorm` would compute something else than this batch norm; None if it would not."""
    kind = type(norm)
    as_torch = kind.forward is nn.modules.batchnorm._BatchNorm.forward or kind in (nn.SyncBatchNorm, SyncBatchNorm)
    if as_torch or (kind.__module__ == SPIKINGJELLY and kind.__name__ in FOLDING):
        return None
    return (
        f"{kind.__name__} has a forward of its own, which would be lost; expected a batch norm of torch or SpikingJelly"
    )


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm without neurons after `convert_sync_batchnorm`: like nn.SyncBatchNorm, but also on the CPU.

    It takes the inputs that `norm` takes: [N, C, ...], or [T, N, C, ...] for SpikingJelly's in step mode "m".
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, process_group: Any = None) -> None:
        super().__init__(norm.num_features, **options_of(norm, *NORM_OPTIONS))
        self.process_group = process_group
        self.kind: Any = norm.kind if isinstance(norm, SyncBatchNorm) else type(norm)
        if hasattr(norm, "step_mode"):
            self.step_mode = norm.step_mode
        adopt(self, norm)

    def forward(self, input: Tensor) -> Tensor:
        if getattr(self, "step_mode", "s") == "m":
            folded = self._normalise(input.flatten(0, 1))
            return folded.view(*input.shape[:2], *folded.shape[1:])
        return self._normalise(input)

    def _normalise(self, input: Tensor) -> Tensor:
        if not self.training or processes(self.process_group) == 1:
            return super().forward(input)
        self._check_input_dim(input)
        both = synchronise(input, self.weight, self.bias, eps=self.eps, dim=1, group=self.process_group)
        track(self, both.mean, both.var, both.size)
        return nn.functional.batch_norm(both.x, both.mean, both.var, both.weight, both.bias, eps=self.eps)

    def _check_input_dim(self, input: Tensor) -> None:
        self.kind._check_input_dim(self, input)


class SyncBatchNormLIF(BatchNormLIF):
    """A BatchNormLIF layer after `convert_sync_batchnorm`: the same operator, in training with statistics over the
    batches of all processes. state_dict is unchanged."""

    pools = (1, 2)

    def __init__(self, layer: BatchNormLIF, process_group: Any = None) -> None:
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
    """Make the batch norms of a model, including BatchNormLIF layers, use statistics over the processes of the group.

    nn.SyncBatchNorm.convert_sync_batchnorm would replace BatchNormLIF layers by a batch norm without neurons, and does
    not run on the CPU, so use this function instead. It changes the model in place and returns it. Parameters, buffers
    and state_dict are kept, and SpikingJelly's batch norms keep their step mode.

    Raises:
        TypeError: a batch norm with a forward of its own, named; the model is unchanged.
    """
    for path, module in model.named_modules():
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, BatchNormLIF)
        if norm and (why := synchronisation_problem(module)) is not None:
            raise TypeError(f"convert_sync_batchnorm: {path or 'the model'}: {why}")
    return _synchronised(model, process_group)


def _synchronised(module: nn.Module, process_group: Any) -> nn.Module:
    if isinstance(module, BatchNormLIF):
        return SyncBatchNormLIF(module, process_group)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return SyncBatchNorm(module, process_group)
    for name, child in list(module._modules.items()):  # under each of its names
        if child is not None:
            setattr(module, name, _synchronised(child, process_group))
    return module
