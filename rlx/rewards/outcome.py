"""The result of one call of a reward function: a verdict, or the reason why there is none."""

from __future__ import annotations

import math
import numbers
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict

SHOWN = 60
"""Characters of a wrong value or of an exception's message that a sentence shows."""
SCORE_FIX = "return a finite number, or a dict with the number as 'score'"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call of a reward gave no score.

    Example:
        ``Failure("returned nan", fix="return a finite number", line=12)``
    """

    problem: str
    fix: str
    line: int | None = None
    """Line of the user's file; None for that of the function's definition."""
    kind: Literal["error", "timeout"] = "error"


Outcome = Verdict | NeedsSymbolicCheck | Failure


def outcome(value: Any) -> Outcome:
    """The verdict in a value that a reward function returned: a number, a bool, a verdict, or a dict with ``score``.

    A dict's other values must be finite numbers too; they become the verdict's metrics.
    """
    if isinstance(value, NeedsSymbolicCheck):
        return value
    if isinstance(value, Verdict):
        return value if _finite(value.score) is not None else _wrong(value.score)
    if not isinstance(value, Mapping):
        score = _finite(value)
        return _wrong(value) if score is None else Verdict(score, "function", None)
    if "score" not in value:
        keys = ", ".join(map(str, value)) or "none"
        return Failure(f"returned a dict without 'score' (keys: {keys})"[: 2 * SHOWN], SCORE_FIX)
    metrics: dict[str, float] = {}
    for key, entry in value.items():
        number = _finite(entry)
        if number is None:
            return _wrong(entry, f" as '{key}'")
        metrics[str(key)] = number
    return Verdict(metrics.pop("score"), "function", None, metrics)


def outcomes_of_batch(values: Any, count: int) -> list[Outcome]:
    """One outcome for each of ``count`` samples from the value that a batched reward function returned."""
    if hasattr(values, "tolist"):  # a numpy array or a tensor
        values = values.tolist()
    if not isinstance(values, list | tuple):
        failure = Failure(
            f"returned {_shown(values)} for {count} completions", "return a list with one number for each completion"
        )
        return [failure] * count
    if len(values) != count:
        failure = Failure(
            f"returned a list of {len(values)} for {count} completions",
            "return a list with one number for each completion",
        )
        return [failure] * count
    return [outcome(value) for value in values]


def raised(error: BaseException, file: str) -> Failure:
    """The failure of a call that raised, with the last line of the user's file in the traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    text = " ".join(str(error).split())[: 2 * SHOWN]
    problem = f"raised {type(error).__name__}" + (f" ({text})" if text else "")
    return Failure(problem, "correct that line", frames[-1].lineno if frames else None)


def timed_out(seconds: float) -> Failure:
    """The failure of a call that exceeded its time limit."""
    return Failure(f"took longer than reward.timeout={seconds:g} s", "raise reward.timeout", kind="timeout")


def _finite(value: Any) -> float | None:
    """A finite number as float; None for any other value. Arrays and tensors without axes are numbers."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, numbers.Real):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _wrong(value: Any, key: str = "") -> Failure:
    return Failure(f"returned {_shown(value)}{key}", SCORE_FIX)


def _shown(value: Any) -> str:
    """A short form of a wrong value."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # the user's own __repr__
        text = ""
    name = type(value).__name__
    short = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
    return short if isinstance(value, float) or value is None else f"the {name} {short}".rstrip()
