"""norse 1.1.0: LIFBoxCell and IAFCell, in the user's own loop, and Lift, which takes whole sequences."""

import math
from typing import Any

import torch
from norse.torch import IAFCell, LIFBoxCell, Lift
from norse.torch.functional.iaf import IAFFeedForwardState, iaf_feed_forward_step
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, lif_box_feed_forward_step
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.snn import SNN, SNNCell, SNNRecurrent, SNNRecurrentCell
from torch import Tensor, nn

from ..ops.lif.recurrence import Recurrence, Reset, surrogate_fields
from .deferral import Deferral, has_hooks, received
from .replacement import Accelerated, AcceleratedNeuron


def _surrogate(method: str, alpha: float) -> tuple[str, float] | None:
    """Return our equivalent of norse's surrogate; None where the derivatives differ. "super" ignores alpha."""
    if method == "super":
        return "super_spike", 1.0
    known = {("triangle", 1.0): ("triangle", 1.0), ("heavi_erfc", 2.0): ("erf", 2.0), ("tanh", 2.0): ("sigmoid", 4.0)}
    return known.get((method, alpha))


def _float(value: Any) -> float | None:
    """Return a number, or the value of a tensor with one number and no gradient; otherwise None."""
    if not isinstance(value, Tensor):
        return float(value)
    if value.requires_grad or value.numel() == 0 or bool((value != value.flatten()[0]).any()):
        return None
    return float(value.flatten()[0])


def _promoted(x: Tensor, state: Tensor | None) -> torch.dtype:
    """Return the dtype of torch's arithmetic on x and this state, at most float32. A scalar state changes nothing."""
    if state is None or state.dim() == 0 or torch.promote_types(x.dtype, state.dtype) == x.dtype:
        return x.dtype
    return torch.float32


class AcceleratedCell(AcceleratedNeuron, SNNCell):
    """norse's step in our recurrence. norse fires above the threshold and we fire at it too, so ours is the next float.

    The parameters are read at acceleration, and again after a change of `p` or of a tensor in it, not at every step.
    Spikes and state have the dtype that norse gives them: on half inputs a state is rounded to half where a call
    returns it.
    """

    step: Any
    state: type

    @classmethod
    def problem(cls, module: Any) -> str | None:
        if module.activation is not cls.step:
            return "another activation than the cell's own"
        return None if cls.scalars(module) is not None else cls.why_not(module)

    @classmethod
    def scalars(cls, module: Any) -> Any:
        """Return (the recurrence, the potential at a sequence's start), read once per p; None if p does not fit."""
        if not issubclass(type(module), Accelerated) or not isinstance(module.p, tuple):
            return cls.read(module)
        tensors = [value for value in module.p if isinstance(value, Tensor)]
        if any(tensor.is_inference() for tensor in tensors):  # torch does not count changes of these
            return cls.read(module)
        now = module.p, module.dt, [(tensor._version, tensor.requires_grad) for tensor in tensors]
        before, found = module.__dict__.get("scalars_of_p", (None, None))
        if before is None or before[0] is not now[0] or before[1:] != now[1:]:
            found = cls.read(module)
            module.__dict__["scalars_of_p"] = now, found
        return found

    @classmethod
    def why_not(cls, module: Any) -> str:
        p = module.p
        if _surrogate(p.method, _float(p.alpha) or math.nan) is None:
            return f"surrogate {p.method!r} with alpha {p.alpha} has no equal here"
        return "parameters that are learned, differ from neuron to neuron, or a reset that is not norse's own"

    @classmethod
    def read(cls, module: Any) -> tuple[Recurrence, float] | None:
        p, v_reset = module.p, module.p.v_reset
        if isinstance(module, IAFCell) and not isinstance(v_reset, nn.Parameter):
            v_reset = torch.as_tensor(
                v_reset
            ).detach()  # norse marks the potential that a sequence starts from, which is this tensor
        subtract = getattr(p, "reset_method", reset_value) is reset_subtract
        values = [_float(v) for v in (getattr(p, "tau_mem_inv", 0.0), getattr(p, "v_leak", v_reset))]
        values += [_float(p.v_th), _float(v_reset), _float(p.alpha)]
        if None in values or getattr(p, "reset_method", reset_value) not in (reset_value, reset_subtract):
            return None
        rate, leak, threshold, after_spike, alpha = (float(v) for v in values if v is not None)
        surrogate = _surrogate(p.method, alpha)
        if surrogate is None:
            return None
        k = module.dt * rate
        a, b, c = (1 - k, k, k * leak) if hasattr(p, "tau_mem_inv") else (1.0, 1.0, 0.0)
        above = float(torch.nextafter(torch.tensor(threshold), torch.tensor(math.inf)))
        reset = int(Reset.SOFT if subtract else Reset.HARD)
        return Recurrence(a, b, c, above, after_spike, reset, *surrogate_fields(*surrogate), False), leak

    def serves(self, x: Tensor) -> bool:
        """Return whether we serve x. On a half input, a parameter with dimensions makes norse's spikes or its state
        float32, depending on the parameter."""
        if not super().serves(x):
            return False
        scalars = isinstance(self.p, tuple) and all(not isinstance(p, Tensor) or p.dim() == 0 for p in self.p)
        return x.dtype == torch.float32 or scalars

    def neuron(self) -> Recurrence:
        return self.scalars(self)[0]

    def steps(self, x_seq: Tensor, state: Any, work: Deferral | None = None) -> tuple[Tensor, Any]:
        """x_seq [T, B, ...] -> spikes and the state after them."""
        neuron, start = self.scalars(self)
        v = None if state is None else state.v.expand(x_seq.shape[1:])
        if v is None and start != neuron.v_reset:
            v = torch.full_like(x_seq[0], start, dtype=torch.float32)
        dtype = _promoted(x_seq, None if state is None else state.v)
        spikes, v_last = self.run(x_seq, v, dtype=dtype, work=work)
        return spikes, self.state(v=v_last.to(dtype))

    def forward(self, input_tensor: Tensor, state: Any = None) -> Any:
        x, work = received(input_tensor, self)
        if x.dim() < 1 or not (work or self.serves(x)):
            return super().forward(input_tensor, state)
        spikes, state = self.steps(x[None], state, work)
        return spikes[0], state


class AcceleratedLIFBoxCell(AcceleratedCell, LIFBoxCell):
    replaces = LIFBoxCell
    step, state = staticmethod(lif_box_feed_forward_step), LIFBoxFeedForwardState


class AcceleratedIAFCell(AcceleratedCell, IAFCell):
    replaces = IAFCell
    step, state = staticmethod(iaf_feed_forward_step), IAFFeedForwardState


class AcceleratedLift(Accelerated, Lift):
    """Lift over an accelerated cell passes it the whole sequence at once; over any other module it is norse's loop."""

    replaces = Lift

    @classmethod
    def problem(cls, module: Any) -> str | None:
        cell = module.lifted_module
        stand_in = STAND_INS.get(type(cell))
        served = stand_in is not None and stand_in is not AcceleratedLift and stand_in.problem(cell) is None
        return None if served or isinstance(cell, AcceleratedCell) else f"Lift of a {type(cell).__name__}"

    def forward(self, x: Tensor | tuple[Tensor, Any]) -> Any:
        cell: Any = self.lifted_module
        x_seq, state = x if isinstance(x, tuple) else (x, None)
        whole = isinstance(cell, AcceleratedCell) and not has_hooks(cell) and x_seq.dim() >= 2
        if whole and cell.serves(x_seq):
            return cell.steps(x_seq, state)
        return super().forward(x)


STAND_INS = {c.replaces: c for c in (AcceleratedLIFBoxCell, AcceleratedIAFCell, AcceleratedLift)}
BATCH_NORMS: set[type] = set()
NEURONS = (SNNCell, SNNRecurrentCell, SNN, SNNRecurrent)
