"""Device, precision and processes of a run, through Accelerate."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from ..config import TrainConfig
from ..errors import UserError


def make_accelerator(config: TrainConfig, unused_parameters: bool) -> Accelerator:
    """Return the Accelerator of a run, for the processes that torchrun or `accelerate launch` started.

    Args:
        unused_parameters: some parameters have no part in the loss, which the averaging of gradients must know.

    Raises:
        UserError: the precision is not available here, or more processes were started than can work together.
    """
    # Accelerate lets processes work together on the CPU only if it is told to use the CPU.
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    if cpu and config.precision == "fp16":  # Accelerate would silently use fp32
        raise UserError("train.precision: fp16 needs a GPU, and this run is on the CPU; use bf16 or fp32")
    try:
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
            gradient_accumulation_steps=config.accumulate,
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=unused_parameters),
                InitProcessGroupKwargs(timeout=timedelta(seconds=config.timeout)),
            ],
        )
    except ValueError as error:
        raise UserError(f"train.precision: {config.precision} cannot be used here ({error})") from error
    started = int(os.environ.get("WORLD_SIZE", 1))
    if started != accelerator.num_processes:
        raise UserError(
            f"processes: {started} were started, but {accelerator.num_processes} can work together here; start this "
            "one with torchrun or accelerate launch"
        )
    return accelerator
