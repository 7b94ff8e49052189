"""Fusion of a model's layers."""

import copy
import itertools

from torch import nn

from .batch_norm import NORM_OPTIONS, BatchNormLIF, BatchNormLIF1d, BatchNormLIF2d, adopt, options_of
from .neurons import LIF


def fuse_conv(conv: nn.Conv1d | nn.Conv2d, layer: BatchNormLIF) -> tuple[nn.Module, LIF]:
    """For inference: return (conv with the batch norm folded into weight and bias, the neurons), copies of both.

    Raises:
        ValueError: the layer is in training mode, or has no running statistics.
    """
    if layer.training or conv.training or layer.running_mean is None:
        raise ValueError("fuse_conv: expected layers in eval mode, with running statistics; call model.eval() first")
    return nn.utils.fuse_conv_bn_eval(conv, layer), layer.lif()


def convert(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """Fuse each batch norm over a sequence with the LIF or IF layer right after it, in a copy of the model.

    It looks in nn.Sequential for a subclass of nn.BatchNorm1d or 2d that takes [T, B, C, ...], marked by `step_mode ==
    "m"` as in SpikingJelly, followed by `LIF` or `IF` with float parameters. A pair with hooks is left alone, because
    the hooks would be lost. Parameters, buffers and training mode are kept. So are the keys in state_dict, except for
    those of the neuron, which becomes nn.Identity.

    Returns:
        The copy, and one line per pair that describes the change.
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
