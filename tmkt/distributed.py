"""Operations shared by the processes of a run; with one process, each of them does nothing."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from .config import TrainConfig
from .errors import UserError

Result = TypeVar("Result")


@contextmanager
def peers_named(config: TrainConfig) -> Iterator[None]:
    """Within the block, the loss of another process raises a UserError that says so."""
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


def run_on_main_process(work: Callable[[], Result]) -> Result:
    """Run `work` on rank 0 and return its result on every rank.

    If it raises UserError, rank 0 reports it and the other ranks exit silently.
    """
    if not _together():
        return work()
    outcome: list[Any] = [None, False]
    error = None
    if distributed.get_rank() == 0:
        try:
            outcome = [work(), True]
        except UserError as mistake:
            error = mistake
    distributed.broadcast_object_list(outcome)
    if error is not None:
        raise error
    if not outcome[1]:
        raise SystemExit(2)
    return outcome[0]


def gather_batch(x_seq: Tensor) -> Tensor:
    """Join the [T, B, ...] of all processes along B, in their order; B must be equal. Gradients flow back.

    Each process then computes the loss of the whole batch, whose gradient is the mean of the gradients over processes.
    """
    return _GatherBatch.apply(x_seq) if _together() else x_seq


def shut_down() -> None:
    """Destroy the process group. Call it at the end of a script, as otherwise Gloo's threads may abort it (SIGABRT).

    Do not call it if this rank alone fails, because the others may be in a collective, for which the call would wait.
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
    """Return whether torch.distributed or DDP raised the error. They have many messages for a lost process."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(module.startswith(("torch.distributed", "torch.nn.parallel.distributed")) for module in modules)


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
