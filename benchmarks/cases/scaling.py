"""Points of the scaling plots: time against T, against N (neurons), and channels_last beside contiguous."""

from dataclasses import replace

import torch

from benchmarks.case import HALVES, Case, Inputs, Shape
from benchmarks.cases import bn_lif, lif

ELEMENTS, CUDA_ELEMENTS = 1 << 20, 1 << 27
"""Elements in a tensor of the T sweep. On the CPU it fits into the last cache, yet outputs are written past it."""

STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NEURONS = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8)
OURS = ("copy_", "copy_ + add", "4 x copy_", "tmkt native", "tmkt triton")
ON_GPU = (*OURS, "SpikingJelly")  # on the CPU a Python loop, whose cost the operator's cases show
T = 4


def point(case: Case, sweep: str, device: str) -> Case:
    only = ON_GPU if device == "cuda" and case.op == "lif" and sweep != "layout" else OURS
    return replace(case, sweep=sweep, only=only, devices=(device,), targets=lambda device, dtype: (), rank=3)


def over_steps(device: str) -> list[Case]:
    """The same number of values for each T, so that a linear cost is a flat line."""
    elements = ELEMENTS if device == "cpu" else CUDA_ELEMENTS
    return [
        point(make((steps, 1, elements // steps), dtypes=(torch.float32,)), "T", device)
        for steps in STEPS
        for make in (lif.forward, lif.training)
    ]


def over_neurons(device: str) -> list[Case]:
    """Without 10^8 on the CPU, and 10^7 only in fp32, because the reference takes seconds."""
    made = []
    for n in NEURONS if device == "cuda" else NEURONS[:-1]:
        dtypes = HALVES[:1] if device == "cpu" and n > 10**6 else HALVES
        made += [point(make((T, 1, n), dtypes=dtypes), "N", device) for make in (lif.forward, lif.training)]
    return made


def over_samples(device: str) -> list[Case]:
    """bn_lif from 1 sample to the number in the operator's cases."""
    _, most, C, H, W = lif.SHAPES[0] if device == "cpu" else lif.on_gpu(lif.SHAPES[0])
    return [
        point(bn_lif.training((T, B, C, H, W), dtypes=(torch.float32,)), "N", device)
        for B in (1, 4, 16, 64, 256)
        if most >= B
    ]


def channels_last(device: str, dtype: torch.dtype, shape: Shape) -> Inputs:
    """x, and all tensors that go with it, in memory order T, B, H, W, C."""
    made = lif.sequence(device, dtype, shape)
    for name in ("x", "grad", "out"):
        tensor = getattr(made, name).detach().flatten(0, 1)
        setattr(made, name, tensor.contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2]))
    made.data = made.x.detach()
    made.x.requires_grad_()
    return made


def over_layouts(device: str) -> list[Case]:
    shape = lif.SHAPES[0] if device == "cpu" else lif.on_gpu(lif.SHAPES[0])
    dtypes = HALVES[: 1 if device == "cpu" else 2]
    made = [make(shape, dtypes=dtypes) for make in (lif.forward, lif.training, bn_lif.training)]
    last = [replace(case, inputs=channels_last, name=f"{case.name}, channels_last") for case in made]
    return [point(case, "layout", device) for pair in zip(made, last, strict=True) for case in pair]


CASES = [
    case
    for device in ("cpu", "cuda")
    for cases in (over_steps, over_neurons, over_samples, over_layouts)
    for case in cases(device)
]
