"""Grading of many responses at once, used by training and evaluation."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version

from rlx.rewards.symbolic_pool import SymbolicPool
from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict

VERSION = f"2, math-verify {version('math-verify')}"
"""Version of the grading rules; any change of a verdict raises the first number."""
RewardFunction = Callable[[str, str], Verdict | NeedsSymbolicCheck]
"""A function from (response, gold) to a verdict, or to the symbolic check that decides it."""


def grade(reward: RewardFunction, pairs: Sequence[tuple[str, str]], pool: SymbolicPool | None = None) -> list[Verdict]:
    """Verdicts on (response, gold) pairs; only pairs that text cannot decide are sent to a worker process.

    Args:
        reward: a registered reward.
        pairs: responses and golds.
        pool: compares answers as mathematics; by default the pool that the process shares.
    """
    first = [reward(response, gold) for response, gold in pairs]
    questions = [verdict for verdict in first if isinstance(verdict, NeedsSymbolicCheck)]
    compared = iter((pool or shared_symbolic_pool()).compare(questions) if questions else [])
    return [next(compared) if isinstance(verdict, NeedsSymbolicCheck) else verdict for verdict in first]


@cache
def shared_symbolic_pool() -> SymbolicPool:
    """The pool that the process shares; it is closed when the process ends."""
    pool = SymbolicPool()
    atexit.register(pool.close)
    return pool
