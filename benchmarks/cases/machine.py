"""`machine`: its ceilings, i.e. the most bytes and operations per second.

The processor determines which of torch's libraries computes fastest, so there is a matrix product and a convolution.
"""

from collections.abc import Callable

import torch

from benchmarks.case import Case, Contestant, Inputs, Shape, Traffic, copy, size


def inputs(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
    data = torch.randn(shape, device=device).to(dtype)
    weight = torch.randn(shape[1], shape[1], 3, 3, device=device).to(dtype) if len(shape) == 4 else None
    return Inputs(data=data, weight=weight, out=torch.empty_like(data))


def product(inputs: Inputs) -> None:
    torch.mm(inputs.data, inputs.data, out=inputs.out)


@torch.no_grad()
def convolution(inputs: Inputs) -> None:
    torch.conv2d(inputs.data, inputs.weight, padding=1)


def product_traffic(inputs: Inputs) -> Traffic:
    return Traffic(3 * size(inputs.data), 2 * inputs.data.shape[0] ** 3)


def convolution_traffic(inputs: Inputs) -> Traffic:
    multiplications = inputs.data.numel() * inputs.data.shape[1] * 9
    return Traffic(2 * size(inputs.data) + size(inputs.weight), 2 * multiplications)


def ceiling(name: str, run: Contestant, shape: Shape, cuda_shape: Shape, traffic: Callable[[Inputs], Traffic]) -> Case:
    def contestants(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
        return {"copy_": Contestant(copy), name: run}

    return Case(
        "machine",
        name,
        shape,
        inputs,
        contestants,
        lambda inputs: None,
        traffic,
        cuda_shape=cuda_shape,
        cuda_dtypes=(torch.float32, torch.bfloat16),
        rank=2,
    )


CASES = [
    ceiling("matrix product", Contestant(product), (2048, 2048), (8192, 8192), product_traffic),
    ceiling("convolution", Contestant(convolution), (10, 256, 24, 24), (160, 256, 48, 48), convolution_traffic),
]
