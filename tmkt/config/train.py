"""The keys of `train`: the training loop."""

from typing import ClassVar, Literal

from ..settings import Number, Section, setting


class TrainConfig(Section):
    """The training loop."""

    section: ClassVar[str] = "train"
    steps: int = setting(400, "length of the training", "optimiser steps", ge=1)
    batch: int = setting(32, "size of a forward pass of one process", "pairs", ge=2)
    accumulate: int = setting(1, "a step has batch * accumulate * processes pairs", "passes per step", ge=1)
    lr: Number = setting(2e-3, "learning rate of AdamW; more than the range would overflow", ge=0, le=1e36)
    weight_decay: Number = setting(0.01, "weight decay of AdamW", ge=0, le=100)
    warmup: int = setting(
        20, "linear rise of the learning rate, before it falls to zero as a cosine", "optimiser steps", ge=0
    )
    log_every: int = setting(10, "interval between two records of the losses", "optimiser steps", ge=1)
    eval_every: int = setting(100, "interval between two validations", "optimiser steps", ge=1)
    checkpoint_every: int = setting(100, "interval between two checkpoints", "optimiser steps", ge=1)
    keep_checkpoints: int = setting(
        2, "how many of the newest are kept, besides the best by validation accuracy", "checkpoints", ge=1
    )
    patience: int | None = setting(
        None, "the run stops after this many in a row without a better one; null: never", "validations", ge=1
    )
    select: Literal["last", "best"] = setting("last", "the weights that are tested and exported")
    compile: bool = setting(False, "torch.compile of the backbone")
    precision: Literal["fp32", "bf16", "fp16"] = setting(
        "fp32", "number format of the forward pass; weights stay in fp32"
    )
    device: Literal["auto", "cpu"] = setting("auto", "auto takes the GPU where there is one")
    timeout: int = setting(
        1800, "time for which a process waits for the others before it gives up", "seconds", ge=1, le=10**8
    )
