"""What is timed: each case builds its contestants on the same inputs, ours and the rivals', behind a correctness gate.

The yardstick is copy_ into a preallocated output of the same bytes: no kernel that reads its input and writes
its output once can be much faster.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import tmkt_kernels as tk
from tmkt_kernels import testing
from tmkt_kernels.lif.reference import Fire

Contestants = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Case:
    """`build(device, dtype, shape)` checks that all contestants agree, then returns them by name.

    `yardstick` names the contestant that ratios refer to; `bytes_per_element(itemsize)` counts what the
    operator must read and write per element of a tensor of this shape.
    """

    op: str
    name: str
    shape: tuple[int, ...]
    build: Callable[[str, torch.dtype, tuple[int, ...]], Contestants]
    yardstick: str
    bytes_per_element: Callable[[int], float]
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    target: str = ""
    devices: tuple[str, ...] = field(default=("cpu", "cuda"))


def plain_loop(x_seq: Tensor) -> Tensor:
    """LIF as one writes it in PyTorch: tau = 2, threshold 1, hard reset to 0, detached, atan surrogate."""
    v = torch.zeros_like(x_seq[0])
    spikes = []
    for x in x_seq.unbind(0):
        v = v + (x - v) / 2
        s = Fire.apply(v - 1, 0, 2.0)
        v = v * (1 - s.detach())
        spikes.append(s)
    return torch.stack(spikes)


def our_backends(device: str) -> dict[str, str]:
    """Names in the table -> backends that can run on this device."""
    return {"tmkt native": "native"} | ({"tmkt triton": "triton"} if device == "cuda" else {})


def lif_forward(device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Contestants:
    x = torch.randn(shape, device=device).to(dtype)
    out = torch.empty_like(x)
    compiled = torch.compile(plain_loop, dynamic=False)
    contestants: Contestants = {"copy_": lambda: out.copy_(x)}
    expected = tk.lif(x, backend="reference")[0]
    for name, backend in our_backends(device).items():
        testing.assert_spikes_equal(tk.lif(x, backend=backend)[0], expected)
        contestants[name] = lambda backend=backend: tk.lif(x, backend=backend)
    if dtype == torch.float32:
        testing.assert_spikes_equal(compiled(x), expected, budget=1e-5)
    contestants["torch.compile(loop)"] = lambda: compiled(x)
    contestants["plain loop"] = lambda: plain_loop(x)
    if rival := spikingjelly_layer("lif"):
        contestants["spikingjelly 2.0.0"] = lambda: rival(x)
    return contestants


def lif_training(device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Contestants:
    x = torch.randn(shape, device=device).to(dtype).requires_grad_()
    grad = torch.randn(shape, device=device).to(dtype)
    plain, out = x.detach(), torch.empty_like(x)
    compiled = torch.compile(plain_loop, dynamic=False)

    def step(forward: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad(forward(x), x, grad)[0]

    def floor() -> None:
        out.copy_(plain)
        torch.add(plain, grad, out=out)

    contestants: Contestants = {"copy_ + add": floor}
    expected = step(lambda t: tk.lif(t, backend="reference")[0])
    for name, backend in our_backends(device).items():
        ours = lambda t, backend=backend: tk.lif(t, backend=backend)[0]  # noqa: E731
        testing.assert_gradient_close(step(ours), expected, dtype)
        contestants[name] = lambda ours=ours: step(ours)
    if dtype == torch.float32:
        assert testing.relative_error(step(compiled), expected) < 1e-3  # its rounding may flip a spike
    contestants["torch.compile(loop)"] = lambda: step(compiled)
    contestants["plain loop"] = lambda: step(plain_loop)
    if rival := spikingjelly_layer("lif"):
        contestants["spikingjelly 2.0.0"] = lambda: step(rival)
    return contestants


def spikingjelly_layer(*layers: str) -> Callable[[Tensor], Tensor] | None:
    """A multi-step chain of SpikingJelly 2.0.0, 64 channels, reset before each call; None if it is not installed."""
    if importlib.util.find_spec("spikingjelly") is None:
        return None
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    makers = {
        "norm": lambda: layer.BatchNorm2d(64, step_mode="m"),
        "lif": lambda: neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m"),
    }
    chain = torch.nn.Sequential(*(makers[name]() for name in layers))

    def run(x_seq: Tensor) -> Tensor:
        functional.reset_net(chain)
        spikes: Tensor = chain.to(x_seq.device)(x_seq)
        return spikes

    return run


def bn_lif_training(device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Contestants:
    channels = shape[2]
    x = torch.randn(shape, device=device).to(dtype).requires_grad_()
    grad = torch.randn(shape, device=device).to(dtype)
    norm = torch.nn.BatchNorm2d(channels, device=device)
    out, plain = torch.empty_like(x), x.detach()

    def unfused(x_seq: Tensor, neuron: Callable[[Tensor], Tensor]) -> Tensor:
        return neuron(norm(x_seq.flatten(0, 1)).view_as(x_seq))

    compiled = torch.compile(lambda x_seq: unfused(x_seq, plain_loop), dynamic=False)

    def step(forward: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(x), (x, norm.weight, norm.bias), grad)

    def floor() -> None:
        for _ in range(2):  # 36 bytes a value in fp32: a read and a copy forward, two adds back
            torch.add(plain, grad, out=out)
        out.copy_(plain)
        plain.sum()

    contestants: Contestants = {"bytes": floor}
    expected = step(lambda t: tk.bn_lif(t, norm.weight, norm.bias, backend="reference")[0])
    for name, backend in our_backends(device).items():
        ours = lambda t, backend=backend: tk.bn_lif(t, norm.weight, norm.bias, backend=backend)[0]  # noqa: E731
        for a, e in zip(step(ours), expected, strict=True):
            assert testing.relative_error(a, e) < 1e-3 + 10 * testing.GRADIENT_TOLERANCE[dtype]  # a spike may flip
        contestants[name] = lambda ours=ours: step(ours)
        contestants[f"batch norm, {name}"] = lambda backend=backend: step(
            lambda t: unfused(t, lambda c: tk.lif(c, backend=backend)[0])
        )
    contestants["torch.compile(loop)"] = lambda: step(compiled)
    rival = spikingjelly_layer("norm", "lif") if dtype == torch.float32 and channels == 64 else None
    if rival:
        contestants["spikingjelly 2.0.0"] = lambda: torch.autograd.grad(rival(x), x, grad)
    return contestants


def mixup(static_dtype: torch.dtype, event_dtype: torch.dtype) -> Callable[..., Contestants]:
    def build(device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Contestants:
        T, B, C, H, W = shape
        static = (torch.rand(B, C, H, W, device=device) * 255).to(static_dtype)
        events = (torch.rand(shape, device=device) * 9).to(event_dtype)
        switch_step = torch.randint(0, T + 1, (B,), device=device)
        index = torch.randperm(B, device=device)
        arguments: dict[str, Any] = {"static_index": index, "scale": (1 / 255, 1.0), "dtype": dtype}

        def mix(backend: str) -> Tensor:
            return tk.time_step_mixup(static, events, switch_step, **arguments, backend=backend)

        expected = mix("reference")
        out = torch.empty_like(expected)
        contestants: Contestants = {"copy_": lambda: out.copy_(expected)}
        for name, backend in our_backends(device).items():
            assert torch.equal(mix(backend), expected)
            contestants[name] = lambda backend=backend: mix(backend)
        contestants["torch.where"] = lambda: mix("reference")
        return contestants

    return build


LIF_SHAPES = [(10, 16, 64, 24, 24), (4, 32, 128, 16, 16), (32, 8, 64, 16, 16)]
HALVES = (torch.float32, torch.bfloat16, torch.float16)

ONE_COPY = "<= 1.5 x copy_"

CASES = [
    *(
        Case("lif", "forward", shape, lif_forward, "copy_", lambda size: 2 * size, HALVES, ONE_COPY)
        for shape in LIF_SHAPES
    ),
    *(
        Case(
            op="lif",
            name="forward + backward",
            shape=shape,
            build=lif_training,
            yardstick="copy_ + add",
            bytes_per_element=lambda size: 5 * size,
            dtypes=HALVES,
            target=">= 1.2 x faster than torch.compile",
        )
        for shape in LIF_SHAPES
    ),
    Case(
        op="bn_lif",
        name="forward + backward",
        shape=LIF_SHAPES[0],
        build=bn_lif_training,
        yardstick="bytes",
        bytes_per_element=lambda size: 9 * size,
        dtypes=HALVES[:2],
        target=">= 2.5 x faster than torch.compile, 5 x than SpikingJelly",
    ),
    *(
        Case("mixup", name, (10, 120, 2, 48, 48), mixup(*dtypes), "copy_", bytes_per_element, target=ONE_COPY)
        for name, dtypes, bytes_per_element in (
            ("float", (torch.float32, torch.float32), lambda size: 4 + size),
            ("uint8 + int16", (torch.uint8, torch.int16), lambda size: 1.5 + size),
        )
    ),
]
