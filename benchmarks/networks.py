"""What the cases of whole models share: their steps, and SpikingJelly's nets as they are, compiled, and on ours.

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
    """Forward, cross-entropy, backward, and an AdamW step whose learning rate is 0: each call does the same work."""
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
    """Rounding flips a spike here and there, and what follows it: logits and loss are near each other, not equal.

    Half types flip so many that the logits of an untrained net come out as different as those of another image (0.8 in
    SEW-ResNet18, measured): only their size is compared. The operators' cases hold spikes to the reference.
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
    """SpikingJelly's net, begun at rest at each call."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_seq: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(self.net)
        return self.net(x_seq)


def prepared(net: nn.Module, step: Step, x_seq: Tensor) -> nn.Module:
    """The net in the mode of the step. For inference batch norms get the statistics of `x_seq`: with those that they
    begin with, few neurons fire."""
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
    """Of a prepared net of SpikingJelly, in the multi-step mode: on our operators, as it is, through the precision
    API (half types, CUDA), and through torch.compile. «As it is» takes what SpikingJelly takes by itself: on CUDA its
    Triton kernels, as the wheel has no others. On half types `accelerate` computes in float32, SpikingJelly in half.
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
        model: list[nn.Module] = []  # made at the first call, which counts as such: what cannot be made is named there

        def run(inputs: Inputs) -> Tensor:
            if not model:
                model.append(Rested(make(copying.deepcopy(net))).train(net.training))
            return step(model[0], inputs)

        is_ours = name.startswith(
            "tmkt"
        )  # `accelerate` leaves batch norm and neuron apart where saved tensors are watched
        return Contestant(run, check(step, dtype), version("spikingjelly"), is_ours, changes_if_watched=is_ours)

    return {name: contestant(name, make) for name, make in made.items()}


def accelerated(net: nn.Module) -> nn.Module:
    report = tmkt_kernels.accelerate(net)
    if not report.replaced:
        raise RuntimeError(f"accelerate replaced nothing: {report}")
    return net
