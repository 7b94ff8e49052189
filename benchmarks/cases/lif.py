"""`lif`: one layer of neurons, forward, and forward + backward."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import tmkt_kernels as tk
from benchmarks.case import (
    FLIPS,
    HALVES,
    Case,
    Contestant,
    Expected,
    Inputs,
    Shape,
    Target,
    Traffic,
    check_neuron,
    copy,
    our_backends,
    size,
)
from benchmarks.rivals import rivals
from tmkt_kernels import testing

SHAPES = ((10, 16, 64, 24, 24), (4, 32, 128, 16, 16), (32, 8, 64, 16, 16))

FORWARD_OPERATIONS, BACKWARD_OPERATIONS = 6, 18
"""Per neuron and step: charge 3, fire 2, reset 1; recomputed, and then the surrogate 5 and the adjoint 7."""


def sequence(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
    """x with requires_grad, the gradient of the spikes, and the inputs and outputs of the yardsticks."""
    x, grad = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    return Inputs(x=x.requires_grad_(), data=x.detach(), grad=grad, out=torch.empty_like(grad))


def forward_backward(layer: Callable[[Tensor], Tensor], inputs: Inputs, leaves: Iterable[Tensor] = ()) -> Any:
    """Return (spikes, gradient of x, gradients of the other leaves)."""
    spikes = layer(inputs.x)
    return spikes, *torch.autograd.grad(spikes, (inputs.x, *leaves), inputs.grad)


def forward_only(layer: Callable[[Tensor], Tensor], inputs: Inputs) -> Any:
    return (layer(inputs.data),)


def copy_and_add(inputs: Inputs) -> None:
    """Move as many tensors as the forward (2) and backward (3) of a layer that recomputes."""
    copy(inputs)
    torch.add(inputs.data, inputs.grad, out=inputs.out)


def expected(step: Callable[..., Any]) -> Callable[[Inputs], Expected]:
    def reference(inputs: Inputs, decay_input: bool) -> Any:
        return step(lambda x: tk.lif(x, decay_input=decay_input, backend="reference")[0], inputs)

    return lambda inputs: Expected(lambda decay_input: reference(inputs, decay_input))


def contestants(step: Callable[..., Any]) -> Callable[..., dict[str, Contestant]]:
    def build(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
        found = {"copy_": Contestant(copy)}
        if step is forward_backward:
            found["copy_ + add"] = Contestant(copy_and_add)
        for name, backend in our_backends(device).items():
            run = lambda inputs, backend=backend: step(lambda x: tk.lif(x, backend=backend)[0], inputs)  # noqa: E731
            found[name] = Contestant(run, check_neuron(dtype, testing.FLIP_BUDGET), ours=True)
        for name, rival in rivals(device, dtype).items():
            layer = rival.make(1.0)
            check = check_neuron(dtype, FLIPS[dtype], rival.same_gradient, rival.decay_input)
            found[name] = Contestant(lambda inputs, layer=layer: step(layer, inputs), check, rival.version)
        return found

    return build


def forward_traffic(inputs: Inputs) -> Traffic:
    x = inputs.data
    return Traffic(2 * size(x) + 4 * x[0].numel(), FORWARD_OPERATIONS * x.numel())


def training_traffic(inputs: Inputs) -> Traffic:
    x = inputs.data
    forward = forward_traffic(inputs)
    return Traffic(forward.bytes + 3 * size(x), forward.operations + BACKWARD_OPERATIONS * x.numel())


def forward_targets(device: str, dtype: torch.dtype) -> tuple[Target, ...]:
    if device == "cpu":
        return (Target("copy_", 1.15),) if dtype == torch.float32 else ()
    return (Target("floor", 1 / 0.9),)


def training_targets(device: str, dtype: torch.dtype) -> tuple[Target, ...]:
    if device == "cpu":
        return (Target("copy_ + add", 1.35),) if dtype == torch.float32 else ()
    return (Target("floor", 1 / 0.9), Target("SpikingJelly", 1 / 1.2 if dtype == torch.float32 else 1 / 6))


def forward(shape: Shape, **options: Any) -> Case:
    parts = sequence, contestants(forward_only), expected(forward_only), forward_traffic
    return Case("lif", "forward", shape, *parts, targets=forward_targets, **options)


def training(shape: Shape, **options: Any) -> Case:
    parts = sequence, contestants(forward_backward), expected(forward_backward), training_traffic
    options = {"targets": training_targets, "yardstick": "copy_ + add"} | options
    return Case("lif", "forward + backward", shape, *parts, **options)


def on_gpu(shape: Shape) -> Shape:
    """A batch that fills the chip: 380 MB in fp32."""
    return (shape[0], 16 * shape[1], *shape[2:])


def small_on_gpu(make: Callable[..., Case], *shapes: Shape) -> list[Case]:
    """Layers small enough for a tensor to fit into the second-level cache, where launches weigh more. No target."""
    return [
        replace(make(shape, dtypes=HALVES[:2]), devices=("cuda",), targets=lambda device, dtype: ()) for shape in shapes
    ]


# Each further dtype takes two more compilations, half a minute at T = 32, so it is left out where it adds nothing.
CASES = [
    make(
        shape,
        dtypes=dtypes,
        cuda_shape=on_gpu(shape),
        cuda_dtypes=HALVES[: 2 if shape is SHAPES[0] else 1],
        rank=0 if shape is SHAPES[0] else 2,
    )
    for shape, dtypes in zip(SHAPES, (HALVES, HALVES[:2], HALVES[:1]), strict=True)
    for make in (training, forward)
] + small_on_gpu(training, *SHAPES[:2])
