"""`machine`: its two ceilings, the bytes and the operations that it does in a second at best."""

import torch

from benchmarks.case import Case, Contestant, Inputs, Shape, Traffic, copy, size


def inputs(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
    data = torch.randn(shape, device=device).to(dtype)
    return Inputs(data=data, out=torch.empty_like(data))


def contestants(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
    def product(inputs: Inputs) -> None:
        torch.mm(inputs.data, inputs.data, out=inputs.out)

    return {"copy_": Contestant(copy), "matrix product": Contestant(product)}


def traffic(inputs: Inputs) -> Traffic:
    """Of the product."""
    return Traffic(3 * size(inputs.data), 2 * inputs.data.shape[0] ** 3)


CASES = [
    Case(
        "machine",
        "ceilings",
        (2048, 2048),
        inputs,
        contestants,
        lambda inputs: None,
        traffic,
        cuda_shape=(8192, 8192),
        cuda_dtypes=(torch.float32, torch.bfloat16),
    )
]
