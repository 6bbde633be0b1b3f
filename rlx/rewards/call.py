"""Calls of a reward function in this process, with a time limit."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rlx.rewards.outcome import Failure, Outcome, outcome, outcomes_of_batch, raised, timed_out
from rlx.rewards.reward_input import RewardInput
from rlx.rewards.user_function import RewardFunction

REPEAT = 1.0
"""Seconds between further signals, for functions that catch the first one."""
BLOCKED = 1.0
"""Seconds after the time limit at which an async function that never yields is interrupted by a signal."""


class TimeLimit(BaseException):
    """Raised inside a call that exceeds its time limit.

    Not an ``Exception``: a function that catches every exception must not catch this one.
    """


def call_reward(
    function: RewardFunction, samples: Sequence[RewardInput], seconds: float, stop_at_failure: bool = False
) -> list[Outcome]:
    """One outcome for each sample.

    A batched function is called once. Calls of an async function for one sample run concurrently.

    Args:
        function: the reward.
        samples: what it sees.
        seconds: time limit of one call; outside the main thread, calls that are not async have none.
        stop_at_failure: call a function of one sample no more after its first failure, which is the outcome of the
            remaining samples.
    """
    if function.form == "batch":
        return _guarded(function, samples, seconds, lambda value: outcomes_of_batch(value, len(samples)))
    if function.is_async:
        return _concurrently(function, samples, seconds)
    outcomes: list[Outcome] = []
    for sample in samples:
        outcomes += _guarded(function, [sample], seconds, lambda value: [outcome(value)])
        if stop_at_failure and isinstance(outcomes[-1], Failure):
            return outcomes + [outcomes[-1]] * (len(samples) - len(outcomes))
    return outcomes


def _guarded(
    function: RewardFunction,
    samples: Sequence[RewardInput],
    seconds: float,
    convert: Callable[[Any], list[Outcome]],
) -> list[Outcome]:
    """The converted value of one call, or its failure for every sample."""
    positional, named = function.arguments(samples)
    try:
        with _time_limit(seconds):
            value = function.call(*positional, **named)
            if isinstance(value, Awaitable):
                value = asyncio.run(_awaited(value))
            return convert(value)
    except TimeLimit:
        failure = timed_out(seconds)
    except (Exception, SystemExit) as error:
        failure = raised(error, function.file)
    return [failure] * len(samples)


def _concurrently(function: RewardFunction, samples: Sequence[RewardInput], seconds: float) -> list[Outcome]:
    """The outcomes of an async function, called for all samples at the same time."""

    async def one(sample: RewardInput) -> Outcome:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                positional, named = function.arguments([sample])
                return outcome(await function.call(*positional, **named))
        except TimeoutError as error:
            return timed_out(seconds) if limit.expired() else raised(error, function.file)
        except Exception as error:
            return raised(error, function.file)

    async def all_samples() -> list[Outcome | BaseException]:
        return await asyncio.gather(*(one(sample) for sample in samples), return_exceptions=True)

    try:
        with _time_limit(seconds + BLOCKED):
            results = asyncio.run(all_samples())
    except TimeLimit:
        return [timed_out(seconds)] * len(samples)
    outcomes: list[Outcome] = []
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, TimeLimit):
            raise result
        outcomes.append(timed_out(seconds) if isinstance(result, BaseException) else result)
    return outcomes


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeLimit`` in this context after ``seconds``, in the main thread only: others receive no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise TimeLimit
