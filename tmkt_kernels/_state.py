"""The potential that a layer keeps from call to call."""

import torch
from torch import Tensor


def as_it_can_be_kept(v: Tensor | None) -> Tensor | None:
    """v; where gradients are recorded, a copy of one that was made in inference mode, which autograd would refuse."""
    return v.clone() if v is not None and torch.is_grad_enabled() and v.is_inference() else v
