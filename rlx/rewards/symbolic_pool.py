"""Worker processes that compare answers as mathematics, and are killed when they take too long.

math-verify's own time limits are signals, useless in threads, and its work can take gigabytes; so each comparison has
a wall clock and an address space of its own. Workers come from a fork server that has sympy loaded: replacing a
killed one takes milliseconds.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict

REMEMBERED = 200_000
"""Size of the verdict cache; it is emptied when full."""
LONGEST = 2000
"""UnlearnBatch longer than this and than the gold (characters) are graded wrong without a comparison."""
TASKS_A_WORKER = 1000
"""A worker is replaced after this many comparisons, because sympy's caches grow."""
GRACE = 2.0
"""Seconds after its time limit at which a worker ends by itself, if its parent no longer exists."""


@dataclass(slots=True)
class SymbolicPool:
    r"""Compares answers in worker processes, which are started for the first comparison.

    Example:
        ``SymbolicPool(seconds=5.0).compare([NeedsSymbolicCheck(gold, answer, "0.5")])[0].score == 1.0``
    """

    seconds: float = 5.0
    """Time limit of one comparison."""
    memory: int = 1 << 30
    """Address space that a worker may use in addition to that at its start (bytes)."""
    workers: int = field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)))
    _pool: Any = None
    _cache: dict[NeedsSymbolicCheck, Verdict] = field(default_factory=dict)

    def compare(self, questions: Sequence[NeedsSymbolicCheck]) -> list[Verdict]:
        """A verdict for each check: ``timeout`` if it took too long, ``error`` if it crashed its worker."""
        if len(self._cache) > REMEMBERED:
            self._cache.clear()
        new = [question for question in dict.fromkeys(questions) if question not in self._cache]
        for question in new:
            if len(question.answer) > max(LONGEST, 2 * len(question.gold)) and not question.bare:
                self._cache[question] = Verdict(0.0, "error", question.extracted)
        new = [question for question in new if question not in self._cache]
        futures = [
            self._open().schedule(_judged, args=(question, self.seconds), timeout=self.seconds) for question in new
        ]
        for question, future in zip(new, futures, strict=True):
            self._cache[question] = _awaited(question, future)
        return [self._cache[question] for question in questions]

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None

    def _open(self) -> Any:
        """The process pool, started at the first use."""
        if self._pool is None:
            from pebble import ProcessPool

            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["math_verify", "rlx.rewards.symbolic", "rlx.rewards.symbolic_pool"])
            self._pool = ProcessPool(
                self.workers, TASKS_A_WORKER, initializer=_confined, initargs=[self.memory], context=context
            )
        return self._pool


def _awaited(question: NeedsSymbolicCheck, future: Any) -> Verdict:
    from pebble import ProcessExpired

    try:
        verdict: Verdict = future.result()
    except FutureTimeout:
        return Verdict(0.0, "timeout", question.extracted)
    except (ProcessExpired, CancelledError, EOFError):
        return Verdict(0.0, "error", question.extracted)
    return verdict


def _judged(question: NeedsSymbolicCheck, seconds: float) -> Verdict:
    """In a worker: the verdict, or ``error`` if the comparison raises."""
    from rlx.rewards.symbolic import compared

    # The kernel ends the process, even inside a multiplication that never lets Python's own handlers run. It outlives
    # a killed parent by no more than this.
    signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)
    try:
        return compared(question)
    except Exception:
        return Verdict(0.0, "error", question.extracted)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _confined(memory: int) -> None:
    """Limit a worker to ``memory`` more bytes, and turn off its terminal signals and messages."""
    # math-verify warns that it has no timeout; here the pool has one.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if Path("/proc/self/statm").exists():
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + memory, in_use + memory))
