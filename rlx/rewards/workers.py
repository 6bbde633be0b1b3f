"""Worker processes that call reward functions, and are killed when a call exceeds its time limit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

from rlx.rewards.call import call_reward
from rlx.rewards.outcome import Failure, Outcome, timed_out
from rlx.rewards.reward_input import RewardInput
from rlx.rewards.user_function import RewardFunction, load_reward

GRACE = 2.0
"""Seconds after its time limit at which a call that ignores every signal is killed with its worker."""
WATCH = 1.0
"""Seconds between two looks of a worker at whether its parent still exists."""
_functions: dict[str, RewardFunction] = {}
"""In a worker: the rewards by reference."""


@dataclass(slots=True)
class RewardWorkers:
    """Processes that load the user's files themselves; only samples and outcomes pass through their pipes.

    Example:
        ``RewardWorkers(4, ["my.py:length"], seconds=60.0).call(function, samples)``
    """

    workers: int
    references: Sequence[str]
    seconds: float
    """Time limit of one call."""
    _pool: Any = field(default=None)

    def call(
        self, function: RewardFunction, samples: Sequence[RewardInput], stop_at_failure: bool = False
    ) -> list[Outcome]:
        """One outcome for each sample; a batched function is called once, in one worker.

        Args:
            function: the reward.
            samples: what it sees.
            stop_at_failure: give up the calls after the first failure, which is the outcome of the remaining samples.
        """
        calls = [list(samples)] if function.form == "batch" else [[sample] for sample in samples]
        pool = self._open()
        limit = self.seconds + GRACE
        futures = [pool.schedule(_call, args=(function.reference, call, self.seconds), timeout=limit) for call in calls]
        outcomes: list[Outcome] = []
        for call, future in zip(calls, futures, strict=True):
            outcomes += self._result(future, len(call))
            if stop_at_failure and isinstance(outcomes[-1], Failure):
                for other in futures:
                    other.cancel()
                return outcomes + [outcomes[-1]] * (len(samples) - len(outcomes))
        return outcomes

    def close(self) -> None:
        """Stop the processes."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def _result(self, future: Any, count: int) -> list[Outcome]:
        from pebble import ProcessExpired

        try:
            outcomes: list[Outcome] = future.result()
        except FutureTimeout:
            return [timed_out(self.seconds)] * count
        except (ProcessExpired, CancelledError, EOFError) as error:
            code = f" with exit code {error.exitcode}" if isinstance(error, ProcessExpired) else ""
            return [Failure(f"ended its worker process{code}", "find out why with reward.workers=0")] * count
        return outcomes

    def _open(self) -> Any:
        """The process pool, started at the first use."""
        if self._pool is None:
            from pebble import ProcessPool

            # Spawned processes are children of this one, have no copy of its GPU, and load the user's file themselves.
            self._pool = ProcessPool(
                self.workers,
                initializer=_start,
                initargs=[list(self.references), os.getpid()],
                context=multiprocessing.get_context("spawn"),
            )
        return self._pool


def _start(references: Sequence[str], parent: int) -> None:
    """In a new worker: leave Ctrl-C to the parent, end with the parent, and load the rewards."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    for reference in references:
        _functions[reference] = load_reward(reference, key="reward")


def _end_with(parent: int) -> None:
    """End this process when its parent does, even if the parent was killed."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    sys.stderr.flush()
    os._exit(1)


def _call(reference: str, samples: Sequence[RewardInput], seconds: float) -> list[Outcome]:
    """In a worker: the outcomes of one call."""
    return call_reward(_functions[reference], samples, seconds)
