"""Helpers shared by the cases of whole models: their steps, and SpikingJelly's nets unchanged, compiled, and on ours.

A model is a module x_seq [T, B, ...] -> logits [T, B, classes], whose mean over time counts.
"""

import contextlib
import copy as copying
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import tmkt_kernels
from benchmarks.case import Contestant, Inputs
from benchmarks.rivals import precise, version

Step = Callable[[nn.Module, Inputs], Tensor]


def precision(inputs: Inputs) -> Any:
    """Autocast for half types."""
    if inputs.dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(inputs.x.device.type, inputs.dtype)


def training_step(model: nn.Module, inputs: Inputs) -> Tensor:
    """Forward, cross-entropy, backward, and an AdamW step with learning rate 0, for the same work in each call."""
    optimizer = model.__dict__.setdefault("optimizer", torch.optim.AdamW(model.parameters(), lr=0.0, fused=True))
    optimizer.zero_grad(set_to_none=True)
    with precision(inputs):
        loss = nn.functional.cross_entropy(model(inputs.x).mean(0), inputs.labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


def inference(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad(), precision(inputs):
        return model(inputs.x).mean(0)


def check(step: Step, dtype: torch.dtype) -> Callable[[Tensor, Tensor], None]:
    """Rounding flips a few spikes, and those that depend on them, so logits and loss are close, not equal.

    Half types flip so many spikes that the logits of an untrained net differ as much as those of another image (0.8 in
    SEW-ResNet18, measured), so only their size is compared. The operators' cases check spikes against the reference.
    """

    def run(result: Tensor, expected: Tensor) -> None:
        found, wanted = result.float(), expected.float()
        assert found.shape == wanted.shape, f"shape {tuple(found.shape)}"
        if step is training_step or dtype == torch.float32:
            error = float((found - wanted).norm() / wanted.norm())
            assert error < 0.1, f"loss or logits differ by {error:.1e} from the reference's"
        else:
            ratio = float(found.norm() / wanted.norm())
            assert 0.5 < ratio < 2, f"logits are {ratio:.1e} times as large as the reference's"

    return run


class Rested(nn.Module):
    """SpikingJelly's net, reset before each call."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_seq: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(self.net)
        return self.net(x_seq)


def prepared(net: nn.Module, step: Step, x_seq: Tensor) -> nn.Module:
    """Put the net in the mode of the step. For inference, batch norms get the statistics of `x_seq`, because with their
    initial ones few neurons fire."""
    if step is training_step:
        return net.train()
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        Rested(net.train())(x_seq)
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


def spikingjelly_contestants(net: nn.Module, step: Step, dtype: torch.dtype) -> dict[str, Contestant]:
    """Contestants from a prepared net of SpikingJelly, in multi-step mode: on our operators, unchanged, through the
    precision API (half types, CUDA), and through torch.compile. Unchanged, SpikingJelly chooses its own backend, which
    on CUDA is its Triton kernels, as the wheel has no others. On half types `accelerate` computes in float32,
    SpikingJelly in half.
    """
    device = next(net.parameters()).device.type
    made: dict[str, Callable[[nn.Module], nn.Module]] = {
        "tmkt accelerate": accelerated,
        "SpikingJelly": lambda net: net,
    }
    if device == "cuda" and dtype != torch.float32:
        made["SpikingJelly precision"] = lambda net: precise(net, dtype)
    made["SpikingJelly compiled"] = lambda net: torch.compile(net, dynamic=False)

    def contestant(name: str, make: Callable[[nn.Module], nn.Module]) -> Contestant:
        model: list[nn.Module] = []  # made at the first call, so that failures are reported there

        def run(inputs: Inputs) -> Tensor:
            if not model:
                model.append(Rested(make(copying.deepcopy(net))).train(net.training))
            return step(model[0], inputs)

        is_ours = name.startswith(
            "tmkt"
        )  # `accelerate` does not fuse batch norm and neuron if saved tensors are watched
        return Contestant(run, check(step, dtype), version("spikingjelly"), is_ours, changes_if_watched=is_ours)

    return {name: contestant(name, make) for name, make in made.items()}


def accelerated(net: nn.Module) -> nn.Module:
    report = tmkt_kernels.accelerate(net)
    if not report.replaced:
        raise RuntimeError(f"accelerate replaced nothing: {report}")
    return net
