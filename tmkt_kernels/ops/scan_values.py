"""Named tuples of the scan in Triton: what its kernels are given, and what their functions hand to each other."""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Functions:
    """One step of a neuron and its adjoint, as @triton.jit functions of blocks; those of `lif`: lif/neuron_triton.py.

    load(parameters, channels, inner, o_n, m_n) -> p, the parameters of neurons o_n, with a field `v_reset`
    charge(v, current, p, RESET) -> h
    fires(h, p, RESET) -> where there is a spike
    reset(h, p, RESET) -> v
    adjoint(step, grads, p, RESET, SURROGATE, DETACH) -> gradients of v before the step, of the current and of h, ds/dh
    parameter_gradients(step, grads, g_h, ds_dh, p, RESET, DETACH) -> a term for each of five parameters
    """

    load: Any
    charge: Any
    fires: Any
    reset: Any
    adjoint: Any
    parameter_gradients: Any

    @property
    def cache_key(self) -> str:
        """Triton's cache on disk holds a compiled kernel as long as no source of these changes."""
        return "-".join(function.cache_key for function in vars(self).values())


class Step(NamedTuple):
    """One time step: v before it, h, and the current."""

    v: Any
    h: Any
    current: Any


class StepGradients(NamedTuple):
    """Gradients of the outputs of a step: s, v after the reset, and h. s and h are None where they have none."""

    s: Any
    v: Any
    h: Any


class Norm(NamedTuple):
    """A batch norm before the neuron, current = (x - mean) scale + bias: pointers to [channels], then values."""

    mean: Any
    scale: Any
    bias: Any


class Outputs(NamedTuple):
    """Pointers: spikes [T, ...], v_last [N], and v_seq [T, N] or None."""

    spikes: Any
    v_last: Any
    v_seq: Any


class Gradients(NamedTuple):
    """Pointers to gradients of `Outputs`, each None where there is none."""

    spikes: Any
    v_last: Any
    v_seq: Any


class Results(NamedTuple):
    """Pointers to what backward writes, each None where it is not wanted.

    x [T, N]; v_init [N]; coefficients [5, N] of each neuron; sums [2, N] over t of g and of g (x - mean), where g is
    the gradient of the current after a batch norm.
    """

    x: Any
    v_init: Any
    coefficients: Any
    sums: Any


class Statistics(NamedTuple):
    """Pointers to [channels]: gradients through the batch's mean and variance take g_mean + (x - mean) slope off g."""

    g_mean: Any
    slope: Any


class Neuron(NamedTuple):
    """A neuron for a launch: its functions, the parameters that `load` takes, and the constants of its variant."""

    functions: Functions
    parameters: Any
    reset: int
    surrogate: int
    detach_reset: bool


class Place(NamedTuple):
    """Which values a program owns: offsets and mask of its neurons, those of its spikes, and a row of spikes."""

    T: Any
    N: Any
    o_n: Any
    m_n: Any
    o_cell: Any
    m_cell: Any
    row: Any


class Source(NamedTuple):
    """Where currents come from and whose they are: the pointer x, the batch norm or None, and the parameters."""

    x: Any
    norm: Any
    p: Any
