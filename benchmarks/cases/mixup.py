"""`mixup`: the fused time-step-mixup gather, from floats and from bytes."""

from collections.abc import Callable

import torch
from torch import Tensor

import tmkt_kernels as tk
from benchmarks.case import HALVES, Case, Contestant, Inputs, Shape, Target, Traffic, copy, our_backends, size


def inputs(static_dtype: torch.dtype | None, event_dtype: torch.dtype | None) -> Callable[..., Inputs]:
    """Make the inputs; None means the dtype of the output."""

    def build(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
        T, B = shape[:2]
        return Inputs(
            static=(torch.rand(shape[1:], device=device) * 255).to(static_dtype or dtype),
            events=(torch.rand(shape, device=device) * 9).to(event_dtype or dtype),
            switch_step=torch.randint(0, T + 1, (B,), device=device),
            index=torch.randperm(B, device=device),
            data=torch.rand(shape, device=device).to(dtype),
            out=torch.empty(shape, device=device, dtype=dtype),
        )

    return build


def mix(inputs: Inputs, backend: str) -> Tensor:
    return tk.time_step_mixup(
        inputs.static,
        inputs.events,
        inputs.switch_step,
        static_index=inputs.index,
        scale=(1 / 255, 1.0),
        dtype=inputs.out.dtype,
        backend=backend,
    )


def plain(inputs: Inputs) -> Tensor:
    """The usual PyTorch code."""
    dtype, (T, B) = inputs.out.dtype, inputs.events.shape[:2]
    is_event = torch.arange(T, device=inputs.events.device)[:, None] >= inputs.switch_step
    static = inputs.static[inputs.index].to(dtype) * (1 / 255)
    return torch.where(is_event.view(T, B, 1, 1, 1), inputs.events.to(dtype), static)


def check(tolerance: float) -> Callable[[Tensor, Tensor], None]:
    return lambda result, expected: torch.testing.assert_close(result, expected, rtol=tolerance, atol=0)


def contestants(device: str, dtype: torch.dtype, shape: Shape) -> dict[str, Contestant]:
    found = {"copy_": Contestant(copy)}
    for name, backend in our_backends(device).items():
        cut_off = (backend, device, dtype) == ("triton", "cpu", torch.bfloat16)  # Triton's interpreter truncates
        exact = check(torch.finfo(dtype).eps if cut_off else 0)
        found[name] = Contestant(lambda inputs, backend=backend: mix(inputs, backend), exact, ours=True)
    # Scaled in the dtype of the output, not in fp32 and then rounded, so the last bit may differ.
    rounding = check(torch.finfo(dtype).eps * 2)
    found["torch.compile"] = Contestant(torch.compile(plain, dynamic=False), rounding)
    found["torch.where"] = Contestant(plain, rounding)
    return found


def traffic(inputs: Inputs) -> Traffic:
    """The images once, the event frames from the switch on, and the output."""
    T = inputs.events.shape[0]
    share = float((T - inputs.switch_step).float().mean()) / T
    moved = size(inputs.static) + int(share * size(inputs.events)) + size(inputs.out)
    return Traffic(moved, inputs.out.numel())


def targets(device: str, dtype: torch.dtype) -> tuple[Target, ...]:
    return (Target("copy_", 1.15),) if device == "cpu" else (Target("floor", 1 / 0.9),)


def case(name: str, *dtypes: torch.dtype | None) -> Case:
    return Case(
        "mixup",
        name,
        (10, 120, 2, 48, 48),
        inputs(*dtypes),
        contestants,
        lambda inputs: mix(inputs, "reference"),
        traffic,
        targets=targets,
        cuda_shape=(10, 1920, 2, 48, 48),
        cuda_dtypes=HALVES[:2],
    )


CASES = [case("from floats", None, None), case("from uint8 and int16", torch.uint8, torch.int16)]
