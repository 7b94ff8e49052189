"""A neuron of the lif family as one value: h = a v + b x + c, its threshold, its reset and its surrogate."""

import functools
import math
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import surrogate as sg
from .. import arguments

Parameter = float | Tensor
"""A float, or a tensor: a scalar, or one value per channel."""
Shape = float | tuple[float, float]
"""alpha of a surrogate, or the pair (alpha, beta) for one with two parameters."""


class Reset(IntEnum):
    """Effect of a spike on the potential. C++ and Triton share the numbers."""

    HARD = 0
    SOFT = 1
    DELAYED_SUBTRACT = 2
    DELAYED_ZERO = 3
    NONE = 4

    @property
    def strict(self) -> bool:
        """Whether the neuron fires only above the threshold, as in snnTorch."""
        return self >= Reset.DELAYED_SUBTRACT


RESET_MECHANISMS = {"subtract": Reset.DELAYED_SUBTRACT, "zero": Reset.DELAYED_ZERO, "none": Reset.NONE}
"""snnTorch's names of its resets."""

SCHEMA = (
    "float a, float b, float c, float v_threshold, float v_reset, int reset, int surrogate, float alpha, float beta, "
    "bool detach_reset"
)
"""`Recurrence.scalars` in the schema of an operator."""


class Recurrence(NamedTuple):
    """The neuron as it is passed from the layer to the kernel; made by `Recurrence.lif` and `Recurrence.leaky`.

    v_reset is the potential at rest and after a hard reset. `surrogate` is the number of a `Surrogate`, or the user's
    function. `coefficients` [5, channels], if given, replace the first five fields, which then have no meaning.
    """

    a: Any  # a float, or in the reference's loop a tensor [N], like the four below
    b: Any
    c: Any
    v_threshold: Any
    v_reset: Any
    reset: int
    surrogate: Any
    alpha: float
    beta: float
    detach_reset: bool
    coefficients: Tensor | None = None

    def scalars(self) -> tuple[Any, ...]:  # no property, which torch.compile of torch 2.10 cannot trace here
        """Return the fields of `SCHEMA`, in its order."""
        return self[:10]

    @classmethod
    def of(cls, scalars: Iterable[Any], coefficients: Tensor | None) -> "Recurrence":
        """Make a Recurrence from the arguments of an operator."""
        return cls(*scalars)._replace(coefficients=coefficients)

    @classmethod
    def lif(
        cls,
        *,
        rate: Parameter | None = None,
        tau: Parameter = 2.0,
        decay_input: bool = True,
        v_threshold: Parameter = 1.0,
        v_reset: Parameter | None = 0.0,
        detach_reset: bool = True,
        surrogate: str | sg.UserSurrogate = "atan",
        alpha: Shape = 2.0,
    ) -> "Recurrence":
        """Check the keywords of `tmkt_kernels.lif`; `rate` is 1 / tau, and replaces tau if given.

        Raises:
            TypeError, ValueError: a keyword of another type or out of range, named.
        """
        numbers = {"tau": tau, "v_threshold": v_threshold, "v_reset": v_reset}
        tensors = {name: p for name, p in numbers.items() if isinstance(p, Tensor)}
        if isinstance(rate, Tensor):
            tensors["rate"] = rate
        if tensors:
            check_parameters(**tensors)
            # Defaults take the places of tensors, because coefficients then replace all five fields.
            numbers |= {n: v for n, v in (("tau", 2.0), ("v_threshold", 1.0), ("v_reset", 0.0)) if n in tensors}
        five = _lif_numbers(**numbers, decay_input=decay_input)
        if not isinstance(detach_reset, bool):
            raise TypeError(f"detach_reset: expected True or False, got {detach_reset!r}")
        coefficients = None
        if tensors:
            if rate is None:
                rate = 1 / tau
            # tau = inf never divides the input.
            b: Parameter = rate if decay_input and (isinstance(rate, Tensor) or rate != 0) else 1.0
            rest = 0.0 if v_reset is None else v_reset
            coefficients = stack_coefficients(1 - rate, b, rest * rate, v_threshold, rest)
        reset = int(Reset.SOFT if v_reset is None else Reset.HARD)
        return cls(*five, reset, *surrogate_fields(surrogate, alpha), detach_reset, coefficients)

    @classmethod
    def leaky(
        cls,
        *,
        beta: Parameter,
        threshold: Parameter = 1.0,
        reset_mechanism: str = "subtract",
        surrogate: str | sg.UserSurrogate = "atan",
        alpha: Shape = 2.0,
    ) -> "Recurrence":
        """Check the keywords of `tmkt_kernels.leaky`.

        Raises:
            TypeError, ValueError: a keyword of another type or out of range, named.
        """
        if reset_mechanism not in RESET_MECHANISMS:
            raise ValueError(f"reset_mechanism: expected 'subtract', 'zero' or 'none', got {reset_mechanism!r}")
        a, v_threshold = 0.0, 0.0
        if not isinstance(beta, Tensor):
            a = arguments.finite("beta", beta, "a finite float or a tensor")
        if isinstance(threshold, float) and threshold == math.inf:
            v_threshold = math.inf  # never fires
        elif not isinstance(threshold, Tensor):
            v_threshold = arguments.finite("threshold", threshold, "a finite float, math.inf or a tensor")
        if not 0 <= a <= 1:
            raise ValueError(f"beta: expected a decay from 0 to 1, got {beta}")
        coefficients = None
        tensors = {name: p for name, p in (("beta", beta), ("threshold", threshold)) if isinstance(p, Tensor)}
        if tensors:
            check_parameters(**tensors)
            decay = beta.clamp(0, 1) if isinstance(beta, Tensor) else a
            coefficients = stack_coefficients(decay, 1.0, 0.0, threshold, 0.0)
        reset = int(RESET_MECHANISMS[reset_mechanism])
        return cls(a, 1.0, 0.0, v_threshold, 0.0, reset, *surrogate_fields(surrogate, alpha), True, coefficients)


def _lif_numbers(
    *, tau: Any, decay_input: bool, v_threshold: Any, v_reset: Any
) -> tuple[float, float, float, float, float]:
    """Return a, b, c, v_threshold and v_reset of a LIF neuron whose parameters are numbers."""
    if isinstance(tau, bool) or not isinstance(tau, (int, float)):
        raise TypeError(f"tau: expected a float or a tensor, got {type(tau).__name__}")
    if not tau >= 1:
        raise ValueError(f"tau: expected a time constant of at least 1 time step (math.inf for IF), got {tau}")
    threshold = arguments.finite("v_threshold", v_threshold)
    rest = 0.0 if v_reset is None else arguments.finite("v_reset", v_reset, "a finite float, or None for a soft reset")
    if not isinstance(decay_input, bool):
        raise TypeError(f"decay_input: expected True or False, got {decay_input!r}")
    if tau == math.inf:
        return 1.0, 1.0, 0.0, threshold, rest
    tau = arguments.finite("tau", tau)
    return 1 - 1 / tau, 1 / tau if decay_input else 1.0, rest / tau, threshold, rest


def surrogate_fields(surrogate: str | sg.UserSurrogate, alpha: Shape) -> tuple[Any, float, float]:
    """Return (surrogate as a number or the user's function, alpha, beta)."""
    parsed = sg.parse(surrogate)
    return int(parsed) if isinstance(parsed, sg.Surrogate) else parsed, *sg.parse_shape(parsed, alpha)


def check_parameters(**tensors: Tensor) -> None:
    """Check that the tensors among a neuron's keywords have one value each, or one per channel.

    Raises:
        TypeError, ValueError: a tensor of another dtype or shape, named.
    """
    channels = 1
    for name, tensor in tensors.items():
        arguments.floating(name, tensor, "with one value, or [C]")
        if tensor.dim() > 1 or tensor.numel() == 0:
            raise ValueError(
                f"{name}: expected one value, or one value for each channel [C]; got shape {tuple(tensor.shape)}"
            )
        if channels > 1 and tensor.numel() not in (1, channels):
            raise ValueError(f"{name}: expected 1 or {channels} values, as other parameters have; got {tensor.numel()}")
        channels = max(channels, tensor.numel())


def stack_coefficients(*five: Parameter) -> Tensor:
    """a, b, c, v_threshold, v_reset -> [5, channels], differentiable, in float32 or a tensor's wider dtype."""
    tensors = [p for p in five if isinstance(p, Tensor)]
    dtype = functools.reduce(torch.promote_types, (p.dtype for p in tensors), torch.float32)
    channels = max(p.numel() for p in tensors)
    constant = functools.partial(tensors[0].new_full, (channels,), dtype=dtype)
    return torch.stack([p.to(dtype).expand(channels) if isinstance(p, Tensor) else constant(p) for p in five])


def of_neurons(coefficients: Tensor, inner: int, neurons: int) -> Tensor:
    """[5, channels] -> [5, neurons]: neuron n has those of channel n // inner % channels."""
    return coefficients[:, torch.arange(neurons, device=coefficients.device) // inner % coefficients.shape[1]]
