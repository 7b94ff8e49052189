"""`bn_lif`: batch norm over steps and samples and the neurons, forward + backward, with and without 2x2 pooling."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

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
from benchmarks.cases.lif import (
    BACKWARD_OPERATIONS,
    FORWARD_OPERATIONS,
    SHAPES,
    forward_backward,
    on_gpu,
    sequence,
    small_on_gpu,
)
from benchmarks.rivals import plain_loop, rivals
from tmkt_kernels.ops.bn_lif.reference import average_pool

NORM_OPERATIONS = 16
"""Per value: statistics 4, normalising 2, again in backward 2, the two sums 4, the gradient of x 4."""


def copies(count: int) -> Callable[[Inputs], None]:
    """Return `count` runs of `copy_`: 8 values are read and written without pooling, 5.75 with it."""

    def run(inputs: Inputs) -> None:
        for _ in range(count):
            copy(inputs)

    return run


def chain(norm: nn.Module, neuron: Callable[[Tensor], Tensor], pooled: bool) -> Callable[[Tensor], Tensor]:
    """Return batch norm, neuron and pooling in sequence, as in all rivals."""

    def run(x_seq: Tensor) -> Tensor:
        spikes = neuron(norm(x_seq.flatten(0, 1)).view_as(x_seq))
        return average_pool(spikes) if pooled else spikes

    return run


def inputs(pooled: bool) -> Callable[..., Inputs]:
    def build(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
        made = sequence(device, dtype, shape)
        if pooled:
            made.grad = average_pool(made.grad)
        return made

    return build


def check_pooled(check: Callable[[Any, Any], None], pooled: bool) -> Callable[[Any, Any], None]:
    """Turn averages of four spikes into planes, "more than i spikes" for i from 0 to 3, to count flips."""

    def planes(result: Any) -> Any:
        return (torch.stack([result[0] * 4 > i for i in range(4)]).float(), *result[1:])

    def run(result: Any, expected: Any) -> None:
        check(planes(result), Expected(lambda decay_input: planes(expected[decay_input])))

    return run if pooled else check


def contestants(pooled: bool) -> Callable[..., dict[str, Contestant]]:
    def build(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
        norm = nn.BatchNorm2d(shape[2], device=device)
        leaves = tuple(norm.parameters())
        pool = 2 if pooled else 1
        count = 3 if pooled else 4
        found = {"copy_": Contestant(copy), f"{count} x copy_": Contestant(copies(count))}

        def add(name: str, layer: Callable[[Tensor], Tensor], check: Any, **options: Any) -> None:
            run = lambda inputs: forward_backward(layer, inputs, leaves)  # noqa: E731
            found[name] = Contestant(run, check_pooled(check, pooled), **options)

        exact = check_neuron(dtype, 1e-4)
        for name, backend in our_backends(device).items():
            fused = lambda x, b=backend: tk.bn_lif(x, *leaves, pool=pool, backend=b)[0]  # noqa: E731
            add(name, fused, exact, ours=True)
            neuron = lambda x, b=backend: tk.lif(x, backend=b)[0]  # noqa: E731
            add(f"BatchNorm2d, {name}", chain(norm, neuron, pooled), check_neuron(dtype, FLIPS[dtype]), ours=True)
        for name, rival in rivals(device, dtype).items():
            check = check_neuron(dtype, FLIPS[dtype], rival.same_gradient, rival.decay_input)
            if name == "torch.compile":
                layer = torch.compile(chain(norm, plain_loop(), pooled), dynamic=False)
            else:
                layer = chain(norm, rival.make(1.0), pooled)
            add(name, layer, check, version=rival.version)
        return found

    return build


def expected(pooled: bool) -> Callable[[Inputs], Expected]:
    def reference(inputs: Inputs, decay_input: bool) -> Any:
        channels, device = inputs.data.shape[2], inputs.data.device
        leaves = [torch.full((channels,), value, device=device, requires_grad=True) for value in (1.0, 0.0)]

        def layer(x: Tensor) -> Tensor:
            pool = 2 if pooled else 1
            return tk.bn_lif(x, *leaves, pool=pool, decay_input=decay_input, backend="reference")[0]

        return forward_backward(layer, inputs, leaves)

    return lambda inputs: Expected(lambda decay_input: reference(inputs, decay_input))


def traffic(inputs: Inputs) -> Traffic:
    """Forward reads x twice and writes the spikes; backward reads x and their gradient twice and writes that of x."""
    x, out = inputs.data, inputs.grad
    moved = 5 * size(x) + 3 * size(out) + 4 * x[0].numel()
    return Traffic(moved, (FORWARD_OPERATIONS + BACKWARD_OPERATIONS + NORM_OPERATIONS) * x.numel())


def targets(pooled: bool) -> Callable[[str, torch.dtype], tuple[Target, ...]]:
    def of(device: str, dtype: torch.dtype) -> tuple[Target, ...]:
        if device == "cpu":
            return (Target("floor", 1.5),) if dtype == torch.float32 else ()
        share = 0.8 if pooled else 0.85
        return (Target("floor", 1 / share), Target("best rival", 1 / 1.6 if dtype == torch.float32 else 1 / 2))

    return of


def training(shape: Shape, pooled: bool = False, **options: Any) -> Case:
    return Case(
        "bn_lif",
        "forward + backward" + (", pooled" if pooled else ""),
        shape,
        inputs(pooled),
        contestants(pooled),
        expected(pooled),
        traffic,
        yardstick="3 x copy_" if pooled else "4 x copy_",
        **({"targets": targets(pooled)} | options),
    )


CASES = [
    *(training(SHAPES[0], pooled, dtypes=HALVES[:2], cuda_shape=on_gpu(SHAPES[0]), rank=0) for pooled in (False, True)),
    training(on_gpu(SHAPES[1]), dtypes=HALVES[:2], devices=("cuda",)),
    *small_on_gpu(training, *SHAPES[:2]),
    *small_on_gpu(functools.partial(training, pooled=True), SHAPES[0]),
]
