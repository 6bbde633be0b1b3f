"""math-verify on the whole response, as most published results were graded."""

from __future__ import annotations

from rlx.registry import register
from rlx.rewards.extract import after_thinking, last_boxed
from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict


@register("reward", paper="no paper: huggingface/Math-Verify 0.9.0, LaTeX extraction")
def math_verify(response: str, gold: str) -> Verdict | NeedsSymbolicCheck:
    """1 if math-verify finds the gold in the response, with or without a box.

    Its extraction of plain expressions is left out: it hands text to Python's ``eval``. So an answer outside of LaTeX
    counts only in a box.

    Args:
        response: generated text.
        gold: the right answer, with or without a box of its own.
    """
    text = after_thinking(response).strip()
    if not text:
        return Verdict(0.0, "empty", "")
    return NeedsSymbolicCheck(f"\\boxed{{{last_boxed(gold) or gold}}}", text, last_boxed(response), bare=True)
