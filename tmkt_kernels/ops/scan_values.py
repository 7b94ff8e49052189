"""Named tuples of the scan in Triton: arguments of its kernels, and values passed between their functions."""

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Neuron:
    """A neuron as a constant of kernels: its step and its adjoint, @triton.jit functions of blocks, and its variant.

    lif/neuron_triton.py has those of `lif`. Each function takes this value as its last argument, NEURON.

    load(parameters, channels, inner, o_n, m_n) -> p, the parameters of neurons o_n, with a field `v_reset`; no NEURON
    charge(v, current, p) -> h
    fires(h, p) -> where there is a spike
    after(h, p) -> v, after the reset
    adjoint(step, grads, p) -> gradients of v before the step, of the current and of h, and ds/dh
    parameter_gradients(step, grads, g_h, ds_dh, p) -> a term for each of five parameters; None where they are fixed
    """

    load: Any
    charge: Any
    fires: Any
    after: Any
    adjoint: Any
    reset: int
    surrogate: int
    detach_reset: bool
    parameter_gradients: Any = None

    @property
    def cache_key(self) -> str:
        """Triton's cache on disk keeps a compiled kernel until one of these sources changes."""
        return "-".join(getattr(value, "cache_key", str(value)) for value in vars(self).values())


class Step(NamedTuple):
    """One time step: v before it, h, and the current."""

    v: Any
    h: Any
    current: Any


class StepGradients(NamedTuple):
    """Gradients of the outputs of a step: s, v after the reset, and h. s and h are None if they have no gradient."""

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
    """Pointers to gradients of `Outputs`, each None if there is none."""

    spikes: Any
    v_last: Any
    v_seq: Any


class Results(NamedTuple):
    """Pointers to backward's results, each None if not needed.

    x [T, N]; v_init [N]; coefficients [5, N], per neuron; sums [2, N] over t of g and of g (x - mean), where g is
    the gradient of the current after a batch norm.
    """

    x: Any
    v_init: Any
    coefficients: Any
    sums: Any


class Statistics(NamedTuple):
    """Pointers to [channels]. The batch's mean and variance subtract g_mean + (x - mean) slope from the gradient g."""

    g_mean: Any
    slope: Any


class Place(NamedTuple):
    """The values that a program owns: offsets and mask of its neurons and its spikes, and the size of a spike row."""

    T: Any
    N: Any
    o_n: Any
    m_n: Any
    o_cell: Any
    m_cell: Any
    row: Any


class Source(NamedTuple):
    """Source of currents: the pointer x, the batch norm or None, and the parameters of the neurons."""

    x: Any
    norm: Any
    p: Any


class Chunk(NamedTuple):
    """Steps whose h are in registers: the first step, v before it, and each h."""

    t0: Any
    v: Any
    h: Any


class Ends(NamedTuple):
    """Backward's pointers: the gradients to read, `Statistics` of a batch norm or None, and the results to write."""

    grads: Any
    statistics: Any
    out: Any


class Sums(NamedTuple):
    """Gradients carried from step to step: of v, of the five parameters, and the two sums of a batch norm."""

    v: Any
    parameters: Any
    norm: Any
