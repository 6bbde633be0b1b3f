"""The grader for prompts that ask for a last line ``Answer: ...``."""

from __future__ import annotations

import re

from rlx.registry import register
from rlx.rewards.by_text import by_text
from rlx.rewards.extract import after_thinking, last_boxed
from rlx.rewards.rlx import in_boxes
from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict

_LINE = re.compile(r"^[\s*#]*answer\s*:\s*(.*?)[\s*]*$", re.IGNORECASE | re.MULTILINE)


@register("reward", paper="2503.14476 (DAPO), the answer format of its prompt")
def answer_line(response: str, gold: str) -> Verdict | NeedsSymbolicCheck:
    """1 if the text after the last line's ``Answer:`` equals the gold as text, as an integer or as mathematics.

    Args:
        response: generated text.
        gold: the right answer, with or without a box of its own.
    """
    lines = _LINE.findall(after_thinking(response))
    if not lines:
        return Verdict(0.0, "no_answer", None)
    extracted = last_boxed(lines[-1]) or lines[-1].strip().strip("$")
    return by_text(extracted, gold) or in_boxes(extracted, gold)
