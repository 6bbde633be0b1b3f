"""What happens when a micro-batch does not fit into memory: a smaller token budget, or one sentence that says why not.

With several processes nothing is repeated: a process that ran out of memory has left the collective operations in which
the others wait for it (gradients that are averaged, shards that are gathered), so no process can reach the point at
which all could agree on a smaller budget. That process ends the run with a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rlx.console import warn
from rlx.engine.batch import MicroBatch
from rlx.errors import UserError

MESSAGES = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Parts of the messages with which torch and its libraries report this as a RuntimeError: on a CPU, by the driver, by
cuBLAS."""
CONNECTION_LOST = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
"""Parts of the messages of gloo and NCCL in a process whose peer has ended, for instance for want of memory."""
FIX = (
    "set model.gradient_checkpointing=true, train adapters (model.lora), or lower {} or batch.max_tokens; the last "
    "checkpoint is kept"
)
"""Fix of an error, with the key that limits the length of a sequence."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the error says that memory could not be allocated."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in MESSAGES)


def lower_budget(budget: int, failed: MicroBatch, plan_for: Callable[[int], list[MicroBatch]]) -> int:
    """Halve a token budget until the micro-batch that did not fit is divided; print what it is now.

    Args:
        budget: the budget with which the micro-batch was planned (tokens).
        failed: the micro-batch that did not fit.
        plan_for: the micro-batches for a budget.

    Raises:
        UserError: when no budget divides it: one sequence alone, or sequences that must stay together.
    """
    lower = budget
    while lower > 1:
        lower //= 2
        if failed not in plan_for(lower):
            warn(
                f"out of memory with micro-batches of {budget} tokens: the work is repeated, and the run continues, "
                f"with {lower} (batch.max_tokens)"
            )
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return lower
    sequences = sum(len(row) for row in failed)
    if sequences == 1:
        raise UserError(
            "out of memory with a single sequence in the micro-batch",
            fix=FIX.format("rollout.max_new_tokens (unlearning: forget.max_tokens)"),
            exit_code=1,
        )
    raise UserError(
        f"out of memory with a micro-batch of {sequences} sequences that the method does not allow to divide",
        fix=FIX.format("method.microbatch"),
        exit_code=1,
    )


def check_repeatable(error: RuntimeError, rank: int | None, work: str) -> None:
    """Return if the error means that work must be repeated in smaller micro-batches; else raise.

    Args:
        error: what the work raised.
        rank: index of this process if it cannot repeat the work, since others wait for it; else None.
        work: what it was doing.

    Raises:
        RuntimeError: the error itself, if it is another one.
        UserError: when several processes do the work together, in the one that ran out of memory and in those that lose
            the connection to it. The former prints it too: only rank 0 prints the error with which a run ends.
    """
    if rank is not None and any(text in str(error) for text in CONNECTION_LOST):
        raise UserError(
            f"process {rank} lost the connection to another process in {work}",
            fix="that process's message says why; the same command continues from the last checkpoint",
            exit_code=1,
        ) from None
    if not is_out_of_memory(error):
        raise error
    if rank is None:
        return
    refusal = UserError(
        f"process {rank} ran out of memory in {work}, which several processes cannot repeat in smaller micro-batches",
        fix=FIX.format("rollout.max_new_tokens") + "; sharding.offload=true continues this run with less memory",
        exit_code=1,
    )
    if rank:
        warn(str(refusal))
    raise refusal from None


@contextmanager
def explained(rank: int, work: str) -> Iterator[None]:
    """Within this context memory that runs out is a UserError: the work cannot be divided.

    Args:
        rank: index of this process.
        work: what it is doing.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"process {rank} ran out of memory in {work}, which needs the same memory with any batch.max_tokens",
            fix="train adapters (model.lora), or use more processes with sharding.mode=fsdp2 or sharding.offload=true; "
            "the last checkpoint is kept",
            exit_code=1,
        ) from None


class RandomState:
    """The state of the random number generators of the CPU and of the GPU in use, to repeat work that draws numbers."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda: Tensor | None = torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def restore(self) -> None:
        """Set the generators back to this state."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda)
