"""The network of a run as a program of torch.export, and as a graph of NIR."""

import io
import itertools

import torch
from torch import Tensor, nn

from tmkt_kernels.nn import LIF, PerStep, fuse_conv

from ..config import Config
from ..errors import UserError
from ..models import SpikingClassifier
from ..models.blocks import ConvLIF
from ..models.scnn import SCNN
from ..models.vgg import ConvBackbone

_IN_A_CHAIN = (
    ConvLIF,
    PerStep,
    LIF,
    nn.Sequential,
    nn.Conv2d,
    nn.Linear,
    nn.AvgPool2d,
    nn.modules.batchnorm._BatchNorm,
)


class _EventLogits(nn.Module):
    """x_seq float32 [T, B, 2, H, W] -> logits [T, B, K] of the event head."""

    def __init__(self, model: SpikingClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_seq: Tensor) -> Tensor:
        logits: Tensor = self.model(x_seq).logits
        return logits


def torch_program(model: SpikingClassifier, config: Config) -> bytes:
    """Return model.pt2: x_seq float32 [T, B, 2, H, W] for any B -> logits [T, B, K]. Leaves `model` in eval mode.

    A program that loads it needs the operators of tmkt_kernels, from Python or from libtmkt_kernels.so.
    """
    any_batch = ({1: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(_EventLogits(model.eval()), (_example(config, 2),), dynamic_shapes=any_batch)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it has paths of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def nir_graph(model: SpikingClassifier, config: Config) -> bytes:
    """Return model.nir, the graph from x_seq to the logits of the event head, batch norms folded into convolutions.

    Raises:
        UserError: NIR is not installed, or the network is no chain of layers that it has; names the layer.
    """
    try:
        import nir

        from tmkt_kernels.compat.nir import to_nir
    except ImportError as error:
        raise UserError(f"--format nir: {error}; run `pip install 'tmkt[nir]'`") from error
    chain = as_chain(model)
    try:
        graph = to_nir(chain, _example(config, 1))
    except ValueError as error:
        raise UserError(f"--format nir: layer {error}") from error
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    return buffer.getvalue()


def as_chain(model: SpikingClassifier) -> nn.Sequential:
    """Return a network without branches as its layers in order, for inference: float [T, B, 2, H, W] -> [T, B, K].

    Raises:
        UserError: the network branches; names its first layer that does.
    """
    backbone = model.eval().backbone
    if isinstance(backbone, ConvBackbone):
        blocks = (*backbone.before, backbone.last)
        layers = [*(layer for block in blocks for layer in _unfused(block)), nn.Flatten(2)]
    elif isinstance(backbone, SCNN):
        layers = [*backbone.features, nn.Flatten(2), backbone.linear, LIF(**backbone.lif.keywords)]
    else:
        inner = ((name, layer) for name, layer in backbone.named_modules() if not isinstance(layer, _IN_A_CHAIN))
        name, layer = max(itertools.islice(inner, 2))  # the backbone itself comes first, with an empty name
        raise UserError(
            f"--format nir: layer backbone.{name} ({type(layer).__name__}) is no convolution, batch norm, pooling or "
            "layer of neurons in a chain of them, as in small, vgg_snn and scnn; use --format torch"
        )
    return nn.Sequential(*layers, model.heads["event"]).eval()


def _unfused(block: nn.Module) -> list[nn.Module]:
    """Return a ConvLIF as a convolution that holds the batch norm, neurons, and pooling if it has one."""
    assert isinstance(block, ConvLIF)
    conv, _ = fuse_conv(block.conv, block.bn)
    pool = [] if block.bn.pool == 1 else [PerStep(nn.AvgPool2d(block.bn.pool))]
    return [PerStep(conv), LIF(**block.bn.keywords), *pool]


def _example(config: Config, batch: int) -> Tensor:
    width, height = config.data.size
    return torch.zeros(config.data.time_steps, batch, 2, height, width)
