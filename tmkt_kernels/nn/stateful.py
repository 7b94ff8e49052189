"""The membrane potential that a layer carries from call to call."""

import torch
from torch import Tensor

from ..ops import transforms
from ..ops.lif.functional import check_inputs


def _recomputation() -> tuple[int, int] | None:
    """Return which call is being repeated in backward, as its pass and node; None outside a recomputation."""
    node = torch._C._current_autograd_node()
    return None if node is None else (torch._C._current_graph_task_id(), node._sequence_nr())


class Stateful:
    """Mixin that carries the membrane potential from call to call with `stateful=True`, until `reset()`. It is detached
    from the graph of the previous call and never enters state_dict."""

    stateful: bool
    v: Tensor | None = None
    _reset_in: tuple[int, int] | None = None  # the recomputation in progress at the last reset

    def reset(self) -> None:
        """Forget the membrane potential, so that the next call starts at rest."""
        self.v = None
        if not torch.compiler.is_compiling():
            self._reset_in = _recomputation()

    def carried(self, x_seq: Tensor) -> Tensor | None:
        """Return v at the start of this call; None is rest.

        Raises:
            ValueError: v belongs to a batch of another shape or device.
            RuntimeError: torch runs this call where v is not that of its place in the sequence: under torch.func, or a
                second time in backward, as torch.utils.checkpoint does.
        """
        if not self.stateful:
            return None
        if transforms.active():
            raise RuntimeError(
                "a stateful layer cannot run under torch.func, which would keep v beyond its transform; "
                "use stateful=False, or tmkt_kernels.lif or leaky, which take v and return it"
            )
        again = None if torch.compiler.is_compiling() else _recomputation()
        if again is not None and self._reset_in != again:
            raise RuntimeError(
                "a stateful layer is run again in backward, as under torch.utils.checkpoint, and its v has moved on; "
                "use stateful=False, call reset() inside the checkpointed function, or leave the layer out of it"
            )
        v = self.v
        if v is None:
            return None
        check_inputs(x_seq)
        if v.shape != x_seq.shape[1:] or v.device != x_seq.device:
            raise ValueError(
                f"x_seq: this stateful layer holds v for a batch of shape {tuple(v.shape)} on {v.device}, "
                f"got {tuple(x_seq.shape[1:])} on {x_seq.device}; call reset() between sequences"
            )
        return v.clone() if v.is_inference() and not torch.is_inference_mode_enabled() else v

    def carry(self, v_last: Tensor) -> None:
        """Keep v for the next call."""
        if self.stateful:
            self.v = v_last.detach()
