"""snnTorch's Leaky neuron on the lif operator: another firing rule, another reset, the same recurrence."""

import math

from torch import Tensor

from ... import surrogate as sg
from .. import arguments
from .functional import Neuron, Parameter, check_parameters, run, stack_coefficients, surrogate_fields
from .reference import LIFParams, Reset

RESET_MECHANISMS = {"subtract": Reset.DELAYED_SUBTRACT, "zero": Reset.DELAYED_ZERO, "none": Reset.NONE}


def leaky_neuron(
    *,
    beta: Parameter,
    threshold: Parameter = 1.0,
    reset_mechanism: str = "subtract",
    surrogate: str | sg.UserSurrogate = "atan",
    alpha: float | tuple[float, float] = 2.0,
) -> Neuron:
    """Check the keywords of `leaky` and turn them into the parameters of the recurrence."""
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
    return LIFParams(a, 1.0, 0.0, v_threshold, 0.0, reset, *surrogate_fields(surrogate, alpha), True), coefficients


def leaky(
    x_seq: Tensor,
    mem_init: Tensor | None = None,
    *,
    beta: Parameter,
    threshold: Parameter = 1.0,
    reset_mechanism: str = "subtract",
    surrogate: str | sg.UserSurrogate = "atan",
    alpha: float | tuple[float, float] = 2.0,
    return_mem: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """Run a layer of snnTorch's `Leaky` neurons (with its default reset_delay=True) over all T time steps.

    mem[t] = beta mem[t-1] + x[t] - R[t] threshold, where R[t] = mem[t-1] > threshold ("subtract"), or
    mem[t] = beta mem[t-1] (1 - R[t]) + x[t] ("zero"), or no reset ("none"); a spike where mem[t] > threshold. No
    gradient goes through R, as in snnTorch.

    Args:
        x_seq: input current [T, B, ...]; dtypes and layouts as for `lif`.
        mem_init: membrane potential before the first step, [B, ...]; None is 0.
        beta: decay from 0 to 1, a float, or a tensor with one value or [C], which is clamped to 0..1.
        threshold: firing threshold, a float, or a tensor with one value or [C]; math.inf never fires.
        reset_mechanism: "subtract", "zero" or "none".
        surrogate, alpha: as for `lif`; snnTorch's own are listed in docs/surrogates.md.
        return_mem: also return mem of every step.
        backend: "auto", "native", "triton" or "reference".

    Returns:
        (spikes, mem_last) or (spikes, mem_last, mem_seq), shapes and dtypes as those of `lif`; differentiable
        with respect to x_seq, mem_init, beta and threshold.

    Raises:
        TypeError, ValueError, RuntimeError: as `lif`.
    """
    neuron = leaky_neuron(
        beta=beta, threshold=threshold, reset_mechanism=reset_mechanism, surrogate=surrogate, alpha=alpha
    )
    return run(x_seq, mem_init, neuron, return_mem, backend)
