"""Grading many responses at once: the one way from (response, gold) pairs to verdicts, in training and evaluation."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version

from rlx.rewards.symbolic_pool import SymbolicPool
from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict

VERSION = f"1, math-verify {version('math-verify')}"
"""Of the rules by which named graders judge; a change of any verdict raises the first number."""
RewardFunction = Callable[[str, str], Verdict | NeedsSymbolicCheck]
"""(response, gold) to a verdict, or to the question that decides it."""


def grade(
    reward: RewardFunction, pairs: Sequence[tuple[str, str]], settle: SymbolicPool | None = None
) -> list[Verdict]:
    """Verdicts of (response, gold) pairs; only those that text does not decide reach a worker process.

    Args:
        reward: a registered reward.
        pairs: responses and golds.
        settle: who compares as mathematics; by default a pool that the whole process shares.
    """
    first = [reward(response, gold) for response, gold in pairs]
    questions = [verdict for verdict in first if isinstance(verdict, NeedsSymbolicCheck)]
    settled = iter((settle or shared_symbolic_pool()).compare(questions) if questions else [])
    return [next(settled) if isinstance(verdict, NeedsSymbolicCheck) else verdict for verdict in first]


@cache
def shared_symbolic_pool() -> SymbolicPool:
    """The process's pool, closed when the process ends."""
    pool = SymbolicPool()
    atexit.register(pool.close)
    return pool
