"""Detection of NaN and infinity in a network, before they become a result.

A spiking network hides them: NaN >= threshold is false, so its layers fall silent and the loss stays finite.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .activity import layer_names


def check_finite(tensors: Mapping[str, Tensor], what: str, remedy: str) -> None:
    """Raise UserError, naming the first of the `tensors` that holds NaN or infinity, between `what` and `remedy`.

    If all are finite, this takes one reduction over all tensors and waits for the device once.
    """
    floats = {name: t.detach() for name, t in tensors.items() if t.is_floating_point() and t.numel()}
    if not floats or torch.nn.utils.get_total_norm(floats.values(), float("inf")).isfinite():
        return
    for name, tensor in floats.items():
        if kind := _kind(tensor):
            raise UserError(f"{what}: {name} holds {kind}; {remedy}")


@contextmanager
def finite_inputs(model: nn.Module) -> Iterator[None]:
    """Within the block, which runs the model in eager mode, NaN or infinity in a spiking layer's input is an error.

    Raises:
        UserError: at the end of the block, naming the layer.
    """
    seen: list[tuple[str, Tensor]] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs[0].numel():
                seen.append((name, torch.linalg.vector_norm(inputs[0].detach(), float("inf"))))

        return hook

    handles = [module.register_forward_pre_hook(watch(name)) for module, name in layer_names(model).items()]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for handle in handles:
            handle.remove()
    if not seen or torch.stack([norm.float() for _, norm in seen]).isfinite().all():
        return
    name, norm = next((name, norm) for name, norm in seen if not norm.isfinite())
    raise UserError(
        f"the spiking layer {name} is given {_kind(norm)}, which it answers by silence; lower data.events.scale or "
        "train.lr"
    )


def _kind(tensor: Tensor) -> str:
    """Return "NaN" or "infinity" if `tensor` holds one of them, else an empty string."""
    if tensor.isnan().any():
        return "NaN"
    return "infinity" if tensor.isinf().any() else ""
