"""Registry of the backbones, and the classifier around each of them."""

import difflib
import inspect
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple

import pydantic
from pydantic import Field
from torch import Tensor, nn

from ..errors import UserError
from ..settings import AsNumber, AsTuple, Section

HEADS = ("event", "mixed")

BACKBONES: dict[str, Callable[..., nn.Module]] = {}
"""Backbones registered by `register_model`, by name."""


class _Options(Section):
    """Keywords of a backbone."""

    section: ClassVar[str] = "model.options"


def register_model(builder: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Decorator: builder(in_channels, size, neuron, **options) -> backbone, registered under the function's name.

    `size` is (width, height) of the frames, `neuron` the keywords of `tmkt_kernels.nn.LIF`. Every option has a default
    of its own type: int, float, bool, str, or a tuple of one of these.

    A backbone maps x_seq [T, B, C, H, W] to (spikes [T, B, S], v_seq [T, B, D]): the input of the heads, and the
    membrane potential before reset of the last spiking layer. It declares S and D as `spike_features` and
    `membrane_features`.
    """
    BACKBONES[builder.__name__] = builder
    return builder


def model_names() -> list[str]:
    return sorted(BACKBONES)


class Output(NamedTuple):
    """logits [T, B, K] of one head, and features [T, B, D], the last layer's membrane potential."""

    logits: Tensor
    features: Tensor


class SpikingClassifier(nn.Module):
    """A backbone with one linear head per stream; with heads=1 both streams share the event head."""

    def __init__(self, backbone: nn.Module, num_classes: int, heads: int = 2) -> None:
        super().__init__()
        if heads not in (1, 2):
            raise ValueError(f"heads: expected 1 (shared) or 2 (event, mixed), got {heads}")
        self.backbone = backbone
        self.feature_dim = int(backbone.membrane_features)  # type: ignore[arg-type]
        spikes = int(backbone.spike_features)  # type: ignore[arg-type]
        self.heads = nn.ModuleDict({name: nn.Linear(spikes, num_classes) for name in HEADS[:heads]})

    def forward(self, x_seq: Tensor, stream: str = "event") -> Output:
        spikes, features = self.backbone(x_seq)
        return Output(self.classify(spikes, stream), features)

    def classify(self, spikes: Tensor, stream: str) -> Tensor:
        """Apply the head of `stream` ("event" or "mixed") to spikes [T, B, S] -> logits [T, B, K]."""
        return self.heads[stream if len(self.heads) == 2 else "event"](spikes)


def create_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 2,
    size: tuple[int, int],
    heads: int = 2,
    neuron: dict[str, Any] | None = None,
    **options: Any,
) -> SpikingClassifier:
    """Build the registered backbone `name` for input frames of `size` (width, height), with its heads.

    Args:
        neuron: keywords of `tmkt_kernels.nn.LIF`.
        options: the backbone's own keywords.

    Raises:
        UserError: an unknown name or option, an option of a wrong type, or a size too small for the backbone.
    """
    if name not in BACKBONES:
        nearest = difflib.get_close_matches(name, BACKBONES, n=1, cutoff=0.0)[0]
        raise UserError(f"model.name: no model is called {name!r}, the nearest is {nearest!r}; known: {model_names()}")
    checked = _options_of(BACKBONES[name]).of(options).model_dump()
    backbone = BACKBONES[name](in_channels=in_channels, size=size, neuron=neuron or {}, **checked)
    return SpikingClassifier(backbone, num_classes, heads)


def _options_of(builder: Callable[..., nn.Module]) -> type[Section]:
    """Return a backbone's options as settings, with numbers above zero; their types come from the defaults."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(builder).parameters.items()
        if parameter.default is not parameter.empty
    }
    options: dict[str, Any] = {name: (_kind_of(default), default) for name, default in defaults.items()}
    return pydantic.create_model(builder.__name__, __base__=_Options, **options)


def _kind_of(default: Any) -> Any:
    if isinstance(default, tuple):
        return Annotated[tuple[_kind_of(default[0]), ...], Field(min_length=1), AsTuple]  # type: ignore[misc]
    return {
        bool: bool,
        int: Annotated[int, Field(gt=0)],
        float: Annotated[float, Field(gt=0), AsNumber],
        str: str,
    }[type(default)]
