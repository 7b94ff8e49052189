"""sinabs 2 and 3: LIF and IAF, and their squeezed forms, where a neuron fires at most once per step."""

import math
from typing import Any

import torch
from sinabs.activation import Gaussian, MembraneReset, MembraneSubtract, SingleExponential, SingleSpike
from sinabs.layers import IAF, LIF, IAFSqueeze, LIFSqueeze, StatefulLayer
from torch import Tensor

from ..ops.lif.recurrence import Parameter, Recurrence, Reset, stack_coefficients, surrogate_fields
from .replacement import AcceleratedNeuron, number


def _surrogate(function: Any, threshold: float) -> tuple[str, float] | None:
    """Return (name, alpha) if we have the same scale; otherwise None."""
    if type(function) is SingleExponential and function.grad_scale == 0.5:
        return "exponential", 1 / (function.grad_width * threshold)
    if type(function) is Gaussian and function.mu == 0 and function.grad_scale == 1:
        return "erf", 1 / (function.sigma * 2**0.5)
    return None


def _reset(function: Any, threshold: float) -> Reset | None:
    """Return our reset for sinabs's. MembraneReset also adds its value to neurons that did not fire, so it equals ours
    only where the value is 0."""
    if type(function) is MembraneSubtract and function.subtract_value in (None, threshold):
        return Reset.SOFT
    return Reset.HARD if type(function) is MembraneReset and function.reset_value == 0 else None


class AcceleratedLayer(AcceleratedNeuron, LIF):
    """sinabs's state handling around our recurrence. x is [B, T, ...] and is copied once, transposed.

    On half inputs sinabs's spikes and `v_mem` are float32, and so are these.
    """

    v_mem: Tensor

    @classmethod
    def problem(cls, module: Any) -> str | None:
        if module.spike_fn is not SingleSpike:
            return "a neuron may fire more than once a step; pass spike_fn=sinabs.activation.SingleSpike"
        for option in ("tau_syn", "alpha_syn", "min_v_mem"):
            if getattr(module, option, None) is not None:
                return f"{option} is set"
        if module.record_states:
            return "record_states=True"
        threshold = module.spike_threshold
        if threshold.requires_grad or threshold.numel() > 1:
            return "a threshold that is learned, or differs from neuron to neuron"
        if module.alpha_mem_calculated.numel() > 1:
            return "a time constant for each neuron"
        value = number(module, "spike_threshold")
        if not math.isfinite(value):
            return f"threshold {value}"
        if _reset(module.reset_fn, value) is None:
            return f"reset {module.reset_fn} has no equal here"
        if _surrogate(module.surrogate_grad_fn, value) is None:
            return f"surrogate {module.surrogate_grad_fn} has no equal here"
        return None

    def neuron(self) -> Recurrence:
        threshold = number(self, "spike_threshold")
        reset, surrogate = _reset(self.reset_fn, threshold), _surrogate(self.surrogate_grad_fn, threshold)
        assert reset is not None
        assert surrogate is not None
        alpha = self.alpha_mem_calculated.to(self.spike_threshold.device)
        b: Parameter = 1 - alpha if self.norm_input else 1.0
        coefficients = stack_coefficients(alpha, b, 0.0, threshold, 0.0)
        fields = surrogate_fields(*surrogate)
        # sinabs's hard reset compares spikes with 0, which passes no gradient; its soft reset is attached.
        return Recurrence(0.0, 1.0, 0.0, threshold, 0.0, int(reset), *fields, reset is Reset.HARD, coefficients)

    def fusion_problem(self) -> str | None:
        return "batch norm before a sinabs layer: time is the second dimension there"

    def forward(self, input_data: Tensor) -> Tensor:
        shape = (input_data.shape[0], *input_data.shape[2:])
        if not self.is_state_initialised():
            self.init_state_with_shape(shape)
        if input_data.dim() < 2 or not self.serves(input_data) or not self.state_has_shape(shape):
            return super().forward(input_data)
        spikes, self.v_mem = self.run(input_data.transpose(0, 1).contiguous(), self.v_mem, dtype=torch.float32)
        self.recordings: dict[str, Tensor] = {}
        self.firing_rate = spikes.mean()
        return spikes.transpose(0, 1)


class AcceleratedLIF(AcceleratedLayer):
    replaces = LIF


class AcceleratedIAF(AcceleratedLayer, IAF):
    replaces = IAF


# The squeezed forms reshape to [B, T, ...] and call the forward of the class after them.
class AcceleratedLIFSqueeze(LIFSqueeze, AcceleratedLIF):
    replaces = LIFSqueeze


class AcceleratedIAFSqueeze(IAFSqueeze, AcceleratedIAF):
    replaces = IAFSqueeze


STAND_INS = {c.replaces: c for c in (AcceleratedLIF, AcceleratedIAF, AcceleratedLIFSqueeze, AcceleratedIAFSqueeze)}
BATCH_NORMS: set[type] = set()
NEURONS = (StatefulLayer,)
