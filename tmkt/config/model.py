"""The keys of `model`: the network."""

from typing import Annotated, Any, ClassVar

from ..settings import AsTuple, Number, Section, setting


class NeuronConfig(Section):
    """Keywords of tmkt_kernels.nn.LIF; the defaults are those of KT and TMKT."""

    section: ClassVar[str] = "model.neuron"
    tau: Number = setting(2.0, "time constant of the membrane", "time steps", ge=1)
    decay_input: bool = setting(True, "the input, too, is divided by tau")
    v_threshold: Number = setting(0.5, "membrane potential from which a neuron fires")
    v_reset: Number | None = setting(0.0, "membrane potential after a spike; null subtracts the threshold instead")
    detach_reset: bool = setting(True, "no gradient flows through the reset")
    surrogate: str = setting("triangle", "surrogate gradient, by a name of docs/surrogates.md")
    alpha: Number | Annotated[tuple[Number, Number], AsTuple] = setting(
        2.0, "shape of the surrogate; the pair [alpha, beta] where the surrogate has two parameters"
    )
    backend: str = setting("auto", "auto, native, triton or reference")


class ModelConfig(Section):
    """The network."""

    section: ClassVar[str] = "model"
    name: str = setting("small", "a backbone of docs/models.md")
    heads: int = setting(2, "2: a classifier for each stream; 1: one for both", "classifiers", ge=1, le=2)
    options: dict[str, Any] = setting({}, "keywords of the backbone, e.g. {channels: [16, 32, 64]}")
    neuron: NeuronConfig = NeuronConfig()
