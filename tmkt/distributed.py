"""What the processes of one run do together; with one process each of these is nothing at all."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, broadcast_object_list
from torch import Tensor, distributed

from .config import TrainConfig
from .errors import UserError

Result = TypeVar("Result")


def make_accelerator(config: TrainConfig, unused_parameters: bool) -> Accelerator:
    """Devices, precision and processes for a run, as torchrun or `accelerate launch` started it.

    Args:
        unused_parameters: some have no part in the loss, which processes that average gradients must know.

    Raises:
        UserError: the precision is not to be had here, or more processes were started than can work together.
    """
    # Accelerate lets processes work together on the CPU only where it is told to use the CPU.
    cpu = config.device == "cpu" or not torch.accelerator.is_available()
    if cpu and config.precision == "fp16":  # Accelerate would take fp32 without a word
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


@contextmanager
def peers_named(config: TrainConfig) -> Iterator[None]:
    """Within the block, the loss of another process is a UserError that says so."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, distributed.DistError) or "gloo" in str(error) or is_of_torch_distributed(error)
        if not (_together() and lost):
            raise
        raise UserError(
            f"processes: another one of this run has ended or did not answer for {config.timeout} s (train.timeout); "
            "see what it said and start all of them again: the run goes on from its last checkpoint"
        ) from error


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
    """The [T, B, ...] of all processes joined along B, in their order; B must be equal. Gradients flow back.

    Each process then has a loss of the whole batch: the mean gradient over processes is that of the loss.
    """
    return _GatherBatch.apply(x_seq) if _together() else x_seq


def leave() -> None:
    """The end of the work of all processes. Without it Gloo's threads now and then abort one that ends (SIGABRT).

    Not for a process that fails alone: the others may be waiting for it, and it would wait for them.
    """
    if _together():
        distributed.destroy_process_group()


class _GatherBatch(torch.autograd.Function):
    """torch.distributed's own differentiable gathers are private, or deprecated."""

    @staticmethod
    def forward(ctx: Any, x_seq: Tensor) -> Tensor:
        parts = [torch.empty_like(x_seq) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, x_seq.contiguous())
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        distributed.all_reduce(grad)
        return grad.chunk(distributed.get_world_size(), dim=1)[distributed.get_rank()]


def is_of_torch_distributed(error: BaseException) -> bool:
    """Whether it was raised within torch.distributed, whose words for a lost process are many."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("torch.distributed") for frame in frames)


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
