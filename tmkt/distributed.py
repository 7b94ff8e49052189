"""What the processes of one run do together; with one process each of these is nothing at all."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed.nn.functional as collectives
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from torch import Tensor, distributed

from .config import TrainConfig
from .errors import UserError

Result = TypeVar("Result")


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Devices, precision and processes for a run, as torchrun or `accelerate launch` started it.

    Raises:
        UserError: the precision is not to be had here, or other processes were started than can work together.
    """
    # Accelerate lets processes work together on the CPU only where it is told to use the CPU.
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    try:
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
            gradient_accumulation_steps=config.accumulate,
            # A method may leave a head unused, e.g. events_only the mixed one.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
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


def on_first(work: Callable[[], Result]) -> Result:
    """Let the first process do it, and return its result on all. At its UserError the others stop without a word."""
    if not _together():
        return work()
    outcome: list[Any] = [None, False]
    error = None
    if distributed.get_rank() == 0:
        try:
            outcome = [work(), True]
        except UserError as mistake:
            error = mistake
    broadcast_object_list(outcome)
    if error is not None:
        raise error
    if not outcome[1]:
        raise SystemExit(2)
    return outcome[0]


def gather_batch(x_seq: Tensor) -> Tensor:
    """The [T, B, ...] of all processes joined along B, in their order; gradients flow back to each one's part.

    Each process then has a loss of the whole batch: the mean gradient over processes is that of the loss.
    """
    if not _together():
        return x_seq
    return torch.cat(collectives.all_gather(x_seq), dim=1)  # type: ignore[no-untyped-call]


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
