"""Cases, tolerances and assertions shared by tests and benchmarks.

One table of tolerances serves laptop, CI and GPU. A spike is a discontinuity, so spikes are compared
by counting flips, and gradients where the spikes agree.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .ops.bn_lif.functional import fixed_lif
from .ops.bn_lif.functional import run as run_bn_lif
from .ops.bn_lif.reference import BatchNorm
from .ops.lif.functional import lif
from .ops.lif.leaky import leaky
from .ops.lif.recurrence import Recurrence
from .ops.mixup.functional import INPUT_DTYPES, time_step_mixup
from .surrogate import Surrogate

FLIP_BUDGET = 1e-6
"""Share of spikes that may differ from the reference on random inputs; on dyadic inputs it is 0."""

BN_FLIP_BUDGET = 1e-6
"""The same for bn_lif, whose statistics and normalisation also round. Measured by tests/kernels/test_bn_lif.py."""

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
"""Values of `alpha` for tests and compilation; surrogates not listed use 0.7, 2.0 and 4.0."""
SURROGATE_SHAPES |= {s: (0.7, 2.0, 4.0) for s in Surrogate if s not in SURROGATE_SHAPES}


@dataclass(frozen=True)
class LIFCase:
    """One configuration of the neuron on one shape [T, B, ...].

    A list among the neuron's keywords means a tensor parameter with a gradient: one value, or one per channel.
    Keywords with `beta` are those of `leaky`, else those of `lif`.
    """

    name: str
    shape: tuple[int, ...] = (7, 3, 5, 11)
    neuron: dict[str, Any] = field(default_factory=dict)
    v_init: bool = True

    def keywords(self, device: str = "cpu") -> dict[str, Any]:
        """Return the keywords, with lists replaced by new leaf tensors."""
        return {
            name: torch.tensor(value, device=device, requires_grad=True) if isinstance(value, list) else value
            for name, value in self.neuron.items()
        }

    def call(self, x_seq: Tensor, v_init: Tensor | None, keywords: dict[str, Any], backend: str) -> tuple[Tensor, ...]:
        """Return (spikes, v_last, v_seq)."""
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
    # Lengths around the number of steps that kernels hold in registers, and numbers of neurons around their blocks.
    *[LIFCase(f"T{T}", (T, 1, 37), {"tau": 1.7, "detach_reset": False}) for T in (3, 8, 16, 17, 40)],
    *[LIFCase(f"T{T}-soft", (T, 1, 37), {"tau": 1.7, "v_reset": None}, v_init=False) for T in (8, 17)],
    *[LIFCase(f"N{N}", (5, 1, N)) for N in (8, 64, 66, 131, 520)],
    LIFCase("long-channels", (70, 2, 65), {"tau": [1.5 + i / 65 for i in range(65)], "v_threshold": [0.8]}),
    LIFCase("long-leaky-zero", (70, 2, 65), {"beta": [0.8], "reset_mechanism": "zero"}),
]


def lif_inputs(case: LIFCase, dtype: torch.dtype, device: str = "cpu", *, dyadic: bool = False) -> dict[str, Any]:
    """Return seeded inputs and output gradients of a case. Dyadic inputs are small multiples of 1/4, on which
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


@dataclass(frozen=True)
class BnLIFCase:
    """One configuration of bn_lif on one shape [T, B, C, ...]; `neuron` as in LIFCase, floats only."""

    name: str
    shape: tuple[int, ...] = (5, 3, 4, 6, 5)
    neuron: dict[str, Any] = field(default_factory=dict)
    training: bool = True
    pool: int = 1

    def call(self, leaves: list[Tensor], backend: str) -> tuple[Tensor, ...]:
        """Return (spikes, v_last, v_seq, batch_mean, batch_var) for x_seq, weight, bias and v_init."""
        neuron = Recurrence.leaky(**self.neuron) if "beta" in self.neuron else fixed_lif(**self.neuron)
        ones = torch.ones_like(leaves[1].detach())
        mean, var = (None, None) if self.training else (0.3 * ones, 2 * ones)
        x_seq, weight, bias, v_init = leaves
        norm = BatchNorm(weight, bias, mean, var, 1e-5)
        return run_bn_lif(x_seq, v_init, norm, neuron, True, backend, self.pool)


BN_LIF_CASES = [
    *[
        BnLIFCase(f"{case.name}-{'training' if training else 'eval'}", neuron=case.neuron, training=training)
        for case in LIF_CASES
        for training in (True, False)
        if case.shape == LIFCase.shape and not any(isinstance(value, list) for value in case.neuron.values())
    ],
    BnLIFCase("features", (5, 4, 37)),
    BnLIFCase("sequence", (4, 3, 5, 33)),
    BnLIFCase("planes", (3, 2, 3, 9, 8)),
    BnLIFCase("short-planes", (5, 3, 6, 3, 2), {"beta": 0.7, "reset_mechanism": "zero", "threshold": 0.5}),
    BnLIFCase("one-step", (1, 6, 5, 4, 4)),
    BnLIFCase("one-channel", (5, 7, 1, 7, 9)),
    BnLIFCase("long", (20, 2, 3, 5), {"beta": 0.7, "reset_mechanism": "zero", "threshold": 0.5}),
    BnLIFCase("pooled", (5, 2, 3, 8, 12), pool=2),
    BnLIFCase("pooled-odd", (5, 2, 3, 7, 9), {"v_reset": None, "detach_reset": False}, pool=2),
    BnLIFCase("pooled-zero", (20, 2, 3, 4, 4), {"beta": 0.7, "reset_mechanism": "zero", "threshold": 0.5}, pool=2),
    BnLIFCase("pooled-eval", (3, 2, 4, 2, 5), {"v_reset": 0.2}, training=False, pool=2),
]


def bn_lif_inputs(case: BnLIFCase, dtype: torch.dtype, device: str = "cpu") -> dict[str, Any]:
    """Return seeded leaves (x_seq, weight, bias, v_init) and gradients of the spikes, v_last and v_seq."""
    generator = torch.Generator().manual_seed(hash_name(case.name))

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    *front, channels = case.shape[:3]
    pooled = (*front, channels, *(size // case.pool for size in case.shape[3:]))
    return {
        "leaves": [
            (draw(*case.shape) * 1.7 + 0.4).to(dtype),
            draw(channels) * 0.3 + 1,
            draw(channels) * 0.3,
            draw(*case.shape[1:]),
        ],
        "grads": (draw(*pooled), draw(*case.shape[1:]), draw(*case.shape)),
    }


def bn_lif_run(case: BnLIFCase, inputs: dict[str, Any], backend: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return (spikes, v_last, v_seq, batch_mean, batch_var), and gradients of x_seq, weight, bias and v_init."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in inputs["leaves"]]
    outputs = case.call(leaves, backend)
    grads = [g.to(o.dtype) for g, o in zip(inputs["grads"], outputs, strict=False)]
    return tuple(o.detach() for o in outputs), torch.autograd.grad(outputs[:3], leaves, grads)


def bn_lif_truth(case: BnLIFCase, inputs: dict[str, Any]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return `bn_lif_run` of the reference in float64."""
    return bn_lif_run(case, {**inputs, "leaves": [leaf.double() for leaf in inputs["leaves"]]}, "reference")


@dataclass(frozen=True)
class MixupCase:
    """One configuration of time_step_mixup: T = 4, 5 samples, images [6 or 5, channels, *plane], 2 event channels."""

    name: str
    channels: int = 2
    plane: tuple[int, int] = (5, 7)
    indexed: tuple[bool, bool] = (True, True)
    sources: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32)

    def inputs(self, device: str = "cpu") -> dict[str, Any]:
        """Return seeded tensors with switch steps at both ends, repeated indices, and sources that no sample uses."""
        generator = torch.Generator().manual_seed(hash_name(self.name))

        def draw(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            if dtype.is_floating_point:
                return (3 * torch.randn(shape, generator=generator)).to(dtype).to(device)
            low = -300 if dtype == torch.int16 else 0
            return torch.randint(low, 256, shape, generator=generator).to(dtype).to(device)

        index = {
            name: torch.tensor(values, device=device)
            for name, values, there in (
                ("static_index", [5, 0, 5, 1, 2], self.indexed[0]),
                ("event_index", [1, 1, 4, 0, 2], self.indexed[1]),
            )
            if there
        }
        return {
            "static": draw((6 if self.indexed[0] else 5, self.channels, *self.plane), self.sources[0]),
            "events": draw((4, 5, 2, *self.plane), self.sources[1]),
            "switch_step": torch.tensor([0, 4, 2, 1, 3], device=device),
            "grad": draw((4, 5, 2, *self.plane), torch.float32),
            "index": index,
        }


MIXUP_CASES = [
    *[
        MixupCase(f"{str(static)[6:]}-{str(events)[6:]}", sources=(static, events))
        for static in INPUT_DTYPES
        for events in INPUT_DTYPES
    ],
    *[
        MixupCase(f"{channels}-channels-{plane[1]}-{indexed[0]:d}{indexed[1]:d}", channels, plane, indexed)
        for channels in (1, 2)
        for plane in ((5, 7), (4, 8))
        for indexed in ((True, True), (True, False), (False, True), (False, False))
    ],
]


def mixup_run(
    case: MixupCase, inputs: dict[str, Any], dtype: torch.dtype, backend: str, exact: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return mixed in `dtype`, and the gradients of static and events if they are floats; `exact`: in float64, of an
    output gradient in `dtype`."""
    sources = [inputs[name].clone() for name in ("static", "events")]
    grad = inputs["grad"].to(dtype)
    if exact:
        sources, dtype = [s.double() if s.is_floating_point() else s for s in sources], torch.float64
    leaves = [source.requires_grad_() for source in sources if source.is_floating_point()]
    static, events = sources
    mixed = time_step_mixup(
        static, events, inputs["switch_step"], **inputs["index"], scale=(1 / 255, 0.5), dtype=dtype, backend=backend
    )
    grads = torch.autograd.grad(mixed, leaves, grad.to(dtype)) if leaves else ()
    return mixed.detach(), grads


def without_flips(inputs: dict[str, Any], same: Tensor) -> dict[str, Any]:
    """Return the inputs with output gradients of 0 for neurons outside `same`, so that a spike that rounding has
    flipped reaches no gradient, neither its neuron's nor a sum over all neurons."""
    return {**inputs, "grads": tuple(g * same for g in inputs["grads"])}


def hash_name(name: str) -> int:
    """Return a seed that is the same in every process, unlike hash()."""
    import zlib

    return zlib.crc32(name.encode())


def lif_run(case: LIFCase, inputs: dict[str, Any], backend: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return outputs (spikes, v_last, v_seq), and gradients of x_seq[, v_init] and of each tensor parameter."""
    keywords = case.keywords(inputs["x_seq"].device.type)
    x_seq = inputs["x_seq"].detach().clone().requires_grad_()
    v_init = None if inputs["v_init"] is None else inputs["v_init"].detach().clone().requires_grad_()
    outputs = case.call(x_seq, v_init, keywords, backend)
    leaves = [t for t in (x_seq, v_init, *keywords.values()) if isinstance(t, Tensor)]
    grads = torch.autograd.grad(outputs, leaves, [g.to(o.dtype) for g, o in zip(inputs["grads"], outputs, strict=True)])
    return tuple(o.detach() for o in outputs), grads


def lif_truth(case: LIFCase, inputs: dict[str, Any]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return `lif_run` of the reference in float64."""
    return lif_run(case, {**inputs, "x_seq": inputs["x_seq"].double()}, "reference")


def assert_spikes_equal(actual: Tensor, expected: Tensor, budget: float = 0.0) -> None:
    """Check that spikes are 0 or 1, and that at most a share `budget` of them differ, as often up as down.

    Under a budget above 0, a single flip is always allowed, because on small tensors the share is coarse.
    """
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    assert bool(((actual == 0) | (actual == 1)).all()), "spikes other than 0 and 1 (or NaN: never written)"
    difference = actual.double() - expected.double()
    flips = int(difference.abs().sum())
    allowed = max(1, int(budget * actual.numel())) if budget > 0 else 0
    assert flips <= allowed, f"{flips} of {actual.numel()} spikes flipped, {allowed} allowed"
    bias = abs(int(difference.sum()))
    assert flips < 16 or bias <= 4 * flips**0.5, f"flips are one-sided: {flips} flips, {bias} more one way"


def assert_stored_equal(actual: Tensor, expected: Tensor, backend: str) -> None:
    """Check bitwise equality, dtypes too. Triton's interpreter truncates bfloat16, where all else rounds to nearest."""
    cut = backend == "triton" and actual.dtype == torch.bfloat16 and not actual.is_cuda
    torch.testing.assert_close(actual, expected, rtol=2**-7 if cut else 0, atol=0)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the L2 norm of the difference over that of `expected`; inf if any value is not finite."""
    error = (actual.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30)
    return float(error) if bool(torch.isfinite(error)) else float("inf")


def assert_gradient_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Check the relative L2 error against the table, the zeros of the reference, and that no element is far off."""
    tolerance = GRADIENT_TOLERANCE[dtype]
    error = relative_error(actual, expected)
    assert error < tolerance, f"relative L2 error {error:.2e}, allowed {tolerance:.0e}"
    largest = float((actual.double() - expected.double()).abs().max()) if actual.numel() else 0.0
    scale = float(expected.double().abs().max()) if actual.numel() else 0.0
    assert largest <= 10 * tolerance * scale, f"largest error {largest:.2e} at a largest gradient of {scale:.2e}"
