"""Cases, tolerances and assertions that tests and benchmarks share.

One table of tolerances for laptop, CI and GPU. A spike is a discontinuity, so spikes are compared
by counting flips, and gradients where the spikes agree.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .lif import lif
from .lif.leaky import leaky
from .surrogate import Surrogate

FLIP_BUDGET = 1e-6
"""Share of spikes that may differ from the reference on random inputs; on dyadic inputs it is 0."""

BN_FLIP_BUDGET = 1e-6
"""The same for bn_lif, whose statistics and normalisation round too. Measured by tests/kernels/test_bn_lif.py."""

GRADIENT_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2, torch.float64: 1e-12}
"""Relative L2 error allowed against the float64 reference at equal spikes, by input dtype."""


SURROGATE_SHAPES: dict[Surrogate, tuple[Any, ...]] = {
    Surrogate.LEAKY_RECTANGLE: ((0.7, 0.01), (2.0, 0.1)),
    Surrogate.FOURIER: ((0.25, 1), (0.125, 3.0)),
    Surrogate.S2NN: ((4.0, 1.0), (1.3, 0.5)),
    Surrogate.LEAKY_RELU: ((1.0, 0.0), (1.3, 0.1)),
    Surrogate.SPIKE_RATE_ESCAPE: ((25.0, 1.0), (1.3, 2.0)),
    Surrogate.SPARSE_FAST_SIGMOID: ((25.0, -1.0), (1.3, 0.2)),
    Surrogate.Q_PSEUDO_SPIKE: (1.5, 2.0, 4.0),
}
"""Values of `alpha` that tests and compilation use; those of the others are 0.7, 2.0 and 4.0."""
SURROGATE_SHAPES |= {s: (0.7, 2.0, 4.0) for s in Surrogate if s not in SURROGATE_SHAPES}


@dataclass(frozen=True)
class LIFCase:
    """One configuration of the neuron on one shape [T, B, ...].

    A list among the neuron's keywords stands for a tensor parameter with a gradient: one value, or one a channel.
    Keywords with `beta` are those of `leaky`, else those of `lif`.
    """

    name: str
    shape: tuple[int, ...] = (7, 3, 5, 11)
    neuron: dict[str, Any] = field(default_factory=dict)
    v_init: bool = True

    def keywords(self, device: str = "cpu") -> dict[str, Any]:
        """The keywords, lists replaced by new leaf tensors."""
        return {
            name: torch.tensor(value, device=device, requires_grad=True) if isinstance(value, list) else value
            for name, value in self.neuron.items()
        }

    def call(self, x_seq: Tensor, v_init: Tensor | None, keywords: dict[str, Any], backend: str) -> tuple[Tensor, ...]:
        """(spikes, v_last, v_seq)"""
        if "beta" in keywords:
            return leaky(x_seq, v_init, **keywords, return_mem=True, backend=backend)
        return lif(x_seq, v_init, **keywords, return_v=True, backend=backend)


LIF_CASES = [
    LIFCase("default", neuron={}, v_init=False),
    LIFCase("tau1.7", neuron={"tau": 1.7}),
    LIFCase("tau1", neuron={"tau": 1.0}),
    LIFCase("if", neuron={"tau": float("inf")}),
    LIFCase("no-decay-input", neuron={"tau": 3.0, "decay_input": False}),
    LIFCase("v-reset", neuron={"tau": 1.7, "v_reset": 0.25}, v_init=False),
    LIFCase("v-reset-attached", neuron={"tau": 1.7, "v_reset": -0.25, "detach_reset": False}),
    LIFCase("soft", neuron={"tau": 2.5, "v_reset": None}),
    LIFCase("soft-attached", neuron={"tau": 2.5, "v_reset": None, "detach_reset": False, "v_threshold": 0.5}),
    LIFCase("soft-if", neuron={"tau": float("inf"), "v_reset": None}),
    LIFCase("sigmoid", neuron={"tau": 1.7, "surrogate": "sigmoid", "alpha": 4.0}),
    LIFCase("sigmoid-attached", neuron={"surrogate": "sigmoid", "alpha": 4.0, "detach_reset": False}),
    LIFCase("triangle", neuron={"tau": 1.7, "surrogate": "triangle", "v_threshold": 0.5}),
    LIFCase("rectangle", neuron={"tau": 1.7, "surrogate": "rectangle", "alpha": 1.3}),
    LIFCase("tensor-tau", neuron={"tau": [1.7], "v_reset": 0.2}),
    LIFCase("channel-tau", neuron={"tau": [1.5, 1.7, 2.0, 3.0, 9.0]}),
    LIFCase("channel-tau-undecayed", neuron={"tau": [1.5, 1.7, 2.0, 3.0, 9.0], "decay_input": False}),
    LIFCase("channel-all", neuron={"tau": [1.5, 1.7, 2.0, 3.0, 9.0], "v_threshold": [0.9], "v_reset": [0.1] * 5}),
    LIFCase(
        "channel-all-attached",
        neuron={"tau": [1.5] * 5, "v_threshold": [0.7] * 5, "v_reset": [0.1], "detach_reset": False},
        v_init=False,
    ),
    LIFCase("channel-soft", neuron={"tau": [1.5], "v_threshold": [0.5, 0.7, 0.9, 1.0, 1.1], "v_reset": None}),
    LIFCase("channel-soft-attached", neuron={"v_threshold": [0.7], "v_reset": None, "detach_reset": False}),
    LIFCase("channel-innermost", (6, 4, 37), {"tau": [1.5 + i / 10 for i in range(37)], "v_threshold": [0.8] * 37}),
    LIFCase("leaky", neuron={"beta": 0.9}),
    LIFCase("leaky-zero", neuron={"beta": 0.7, "reset_mechanism": "zero", "threshold": 0.5}),
    LIFCase("leaky-none", neuron={"beta": 0.5, "reset_mechanism": "none"}),
    LIFCase("leaky-learned", neuron={"beta": [0.5, 0.7, 0.8, 0.9, 0.95], "threshold": [0.8]}),
    LIFCase("leaky-learned-zero", neuron={"beta": [0.7], "threshold": [0.8] * 5, "reset_mechanism": "zero"}),
    LIFCase("one-step", shape=(1, 4, 9)),
    LIFCase("one-neuron", shape=(5, 1, 1)),
    LIFCase("wide", shape=(10, 2, 8, 4, 4)),
    LIFCase("long", shape=(70, 2, 65)),
    LIFCase("long-channels", (70, 2, 65), {"tau": [1.5 + i / 65 for i in range(65)], "v_threshold": [0.8]}),
    LIFCase("long-leaky-zero", (70, 2, 65), {"beta": [0.8], "reset_mechanism": "zero"}),
]


def lif_inputs(case: LIFCase, dtype: torch.dtype, device: str = "cpu", *, dyadic: bool = False) -> dict[str, Any]:
    """Seeded inputs and output gradients of a case. Dyadic ones are small multiples of 1/4, on which
    no backend rounds as long as tau is a power of two and T is small."""
    generator = torch.Generator().manual_seed(hash_name(case.name))

    def draw(*shape: int, as_dtype: torch.dtype = dtype) -> Tensor:
        values = torch.randn(shape, generator=generator)
        values = torch.round(values * 4) / 4 if dyadic else values * 1.5
        return values.to(as_dtype).to(device)

    return {
        "x_seq": draw(*case.shape),
        "v_init": draw(*case.shape[1:], as_dtype=torch.float32) if case.v_init else None,
        "grads": (draw(*case.shape), draw(*case.shape[1:], as_dtype=torch.float32), draw(*case.shape)),
    }


def hash_name(name: str) -> int:
    """A seed that is the same in every process, unlike hash()."""
    import zlib

    return zlib.crc32(name.encode())


def lif_run(case: LIFCase, inputs: dict[str, Any], backend: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Outputs (spikes, v_last, v_seq), and gradients of x_seq[, v_init] and of each tensor parameter."""
    keywords = case.keywords(inputs["x_seq"].device.type)
    x_seq = inputs["x_seq"].detach().clone().requires_grad_()
    v_init = None if inputs["v_init"] is None else inputs["v_init"].detach().clone().requires_grad_()
    outputs = case.call(x_seq, v_init, keywords, backend)
    leaves = [t for t in (x_seq, v_init, *keywords.values()) if isinstance(t, Tensor)]
    grads = torch.autograd.grad(outputs, leaves, [g.to(o.dtype) for g, o in zip(inputs["grads"], outputs, strict=True)])
    return tuple(o.detach() for o in outputs), grads


def lif_truth(case: LIFCase, inputs: dict[str, Any]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`lif_run` of the reference in float64."""
    return lif_run(case, {**inputs, "x_seq": inputs["x_seq"].double()}, "reference")


def assert_spikes_equal(actual: Tensor, expected: Tensor, budget: float = 0.0) -> None:
    """Spikes are 0 or 1, and no more than a share `budget` of them differ, as often up as down.

    A single flip is always allowed under a budget above 0: on small tensors the share is coarse.
    """
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    assert bool(((actual == 0) | (actual == 1)).all()), "spikes other than 0 and 1 (or NaN: never written)"
    difference = actual.double() - expected.double()
    flips = int(difference.abs().sum())
    allowed = max(1, int(budget * actual.numel())) if budget > 0 else 0
    assert flips <= allowed, f"{flips} of {actual.numel()} spikes flipped, {allowed} allowed"
    bias = abs(int(difference.sum()))
    assert flips < 16 or bias <= 4 * flips**0.5, f"flips are one-sided: {flips} flips, {bias} more one way"


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """L2 norm of the difference over that of `expected`; inf for anything that is not finite."""
    error = (actual.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30)
    return float(error) if bool(torch.isfinite(error)) else float("inf")


def assert_gradient_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Relative L2 error within the table, the zeros where the reference has them, and no element far off."""
    tolerance = GRADIENT_TOLERANCE[dtype]
    error = relative_error(actual, expected)
    assert error < tolerance, f"relative L2 error {error:.2e}, allowed {tolerance:.0e}"
    largest = float((actual.double() - expected.double()).abs().max()) if actual.numel() else 0.0
    scale = float(expected.double().abs().max()) if actual.numel() else 0.0
    assert largest <= 10 * tolerance * scale, f"largest error {largest:.2e} at a largest gradient of {scale:.2e}"
