"""snnTorch's Leaky neuron on the lif operator: the same recurrence with another firing rule and another reset."""

from torch import Tensor

from ... import surrogate as sg
from .functional import run
from .recurrence import Parameter, Recurrence, Shape


def leaky(
    x_seq: Tensor,
    mem_init: Tensor | None = None,
    *,
    beta: Parameter,
    threshold: Parameter = 1.0,
    reset_mechanism: str = "subtract",
    surrogate: str | sg.UserSurrogate = "atan",
    alpha: Shape = 2.0,
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
    neuron = Recurrence.leaky(
        beta=beta, threshold=threshold, reset_mechanism=reset_mechanism, surrogate=surrogate, alpha=alpha
    )
    return run(x_seq, mem_init, neuron, return_mem, backend)
