"""A case: one operator on one shape, and the contestants that compute it on the same inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tmkt_kernels import backends, testing

Shape = tuple[int, ...]
Inputs = SimpleNamespace
"""One set of input tensors, with preallocated outputs for the yardsticks."""


class Contestant(NamedTuple):
    """A contestant: `run(inputs)` is timed; `check(result, expected)` raises AssertionError if the result is wrong.

    `version` is that of a rival's package. A contestant that is not `ours` may be missing on a machine; ours may not.
    One that `changes_if_watched` runs other code if hooks watch the saved tensors, so these cannot be counted.
    """

    run: Callable[[Inputs], Any]
    check: Callable[[Any, Any], None] | None = None
    version: str = ""
    ours: bool = False
    changes_if_watched: bool = False


class Traffic(NamedTuple):
    """Lower bounds for one call: bytes that must cross memory, and arithmetic operations."""

    bytes: int
    operations: int


class Target(NamedTuple):
    """Ours may take at most `at_most` times the time (or the peak memory) of `against`.

    `against` is a contestant, "floor" (the bytes at the speed of `copy_`) or "best rival".
    """

    against: str
    at_most: float
    of: str = "time"

    def __str__(self) -> str:
        return f"{self.of} <= {self.at_most:.2f} x {self.against}"


class Verdict(NamedTuple):
    """A target and its outcome: ours over the reference of the target, in time or peak memory; None if not measured."""

    target: Target
    found: float | None

    @property
    def met(self) -> bool:
        return self.found is not None and self.found <= self.target.at_most

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.target}: not measured"
        return f"{self.target}: {self.found:.2f}, {'met' if self.met else 'MISSED'}"


def judge(targets: Sequence[Target], rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """Return the outcome of each target, for the rows of one case and run. Ours is our fastest fused operator."""
    if not targets:
        return []
    found = {row["contestant"]: row for row in rows}
    all_ours = [row for name, row in found.items() if name.startswith("tmkt")]
    if not all_ours:
        return [Verdict(target, None) for target in targets]
    ours = min(all_ours, key=lambda row: row["median_ms"])
    rivals = [row for name, row in found.items() if "copy_" not in name and "tmkt" not in name]
    verdicts = []
    for target in targets:
        key = {"time": "median_ms", "peak memory": "peak_mb"}[target.of]
        if target.against == "floor":
            against = ours["median_ms"] * ours["share_of_copy"]
        elif target.against == "best rival":
            against = min(rivals, key=lambda row: row["median_ms"])[key] if rivals else None
        else:
            against = found.get(target.against, {}).get(key)
        verdicts.append(Verdict(target, ours[key] / against if against and ours[key] is not None else None))
    return verdicts


@dataclass(frozen=True)
class Case:
    """A case with `contestants(device, dtype, shape)` by name, among them "copy_", the yardstick of bandwidth.

    `expected(inputs)` is the reference's result for the checks; `traffic(inputs)` gives the lower bounds. `yardstick`
    names the contestant to which ratios refer, a copy if bandwidth is the limit. A case with a `sweep` ("T", "N",
    "layout") is a point of a scaling plot, and `only` then names its contestants. A `model` is a whole network. Cases
    of a lower `rank` are measured first, so that a time limit cuts off the least important ones.
    """

    op: str
    name: str
    shape: Shape
    inputs: Callable[[str, torch.dtype, Shape], Inputs]
    contestants: Callable[[str, torch.dtype, Shape], dict[str, Contestant]]
    expected: Callable[[Inputs], Any]
    traffic: Callable[[Inputs], Traffic]
    yardstick: str = "copy_"
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    cuda_shape: Shape | None = None
    cuda_dtypes: tuple[torch.dtype, ...] | None = None
    targets: Callable[[str, torch.dtype], tuple[Target, ...]] = lambda device, dtype: ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    sweep: str = ""
    only: tuple[str, ...] = ()
    small: Shape | None = None
    model: bool = False
    rank: int = 1

    def shape_on(self, device: str, small: bool = False) -> Shape:
        """Return the shape for a device; `small`: for a dry run, which times nothing."""
        if small:
            return self.small or tuple(min(n, 6) for n in self.shape)
        return self.cuda_shape or self.shape if device == "cuda" else self.shape

    def dtypes_on(self, device: str) -> tuple[torch.dtype, ...]:
        return self.cuda_dtypes or self.dtypes if device == "cuda" else self.dtypes


HALVES = (torch.float32, torch.bfloat16, torch.float16)

FLIPS = {torch.float32: 1e-4, torch.bfloat16: 0.03, torch.float16: 0.01}
"""Share of spikes in which a rival may differ, because it rounds in another order, and some use half precision."""


class Expected(dict[bool, Any]):
    """The reference's results by `decay_input`, each computed on demand."""

    def __init__(self, compute: Callable[[bool], Any]) -> None:
        super().__init__()
        self.compute = compute

    def __missing__(self, decay_input: bool) -> Any:
        self[decay_input] = self.compute(decay_input)
        return self[decay_input]


def our_backends(device: str) -> dict[str, str]:
    """Return names in the table -> backends of this device. Triton on the CPU is its interpreter, for dry runs."""
    return {f"tmkt {b}": b for b in ("native", "triton") if backends.problem(b, device, torch.float32) is None}


def copy(inputs: Inputs) -> Tensor:
    """The yardstick of bandwidth: a copy of x, read as `data`, into a preallocated output."""
    return inputs.out.copy_(inputs.data)


def size(*tensors: Tensor) -> int:
    """Return the bytes of all elements."""
    return sum(t.numel() * t.itemsize for t in tensors)


def check_neuron(
    dtype: torch.dtype, flips: float, same_gradient: bool = True, decay_input: bool = True
) -> Callable[[Any, Any], None]:
    """Check (spikes, gradients...) against `expected[decay_input]`: spikes up to a share of flips; gradients finite,
    and equal if the rival has the same definition. A flipped spike changes the gradients of its neuron, so their
    tolerance is the share of flips.
    """

    def check(result: Any, expected: Any) -> None:
        (spikes, *grads), (spikes_expected, *grads_expected) = result, expected[decay_input]
        assert spikes.shape == spikes_expected.shape, f"shape {tuple(spikes.shape)}"
        assert bool(((spikes == 0) | (spikes == 1)).all()), "spikes other than 0 and 1"
        flipped = int((spikes != spikes_expected).sum())
        assert flipped <= max(1, flips * spikes.numel()), f"{flipped} of {spikes.numel()} spikes differ"
        for grad, grad_expected in zip(grads, grads_expected, strict=True):
            assert bool(torch.isfinite(grad).all()), "gradients that are not finite"
            if same_gradient:
                error = testing.relative_error(grad, grad_expected)
                allowed = 10 * testing.GRADIENT_TOLERANCE[dtype] + 10 * flips**0.5
                assert error < allowed, f"relative L2 error of a gradient {error:.1e}, allowed {allowed:.1e}"

    return check
