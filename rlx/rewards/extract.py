r"""Extraction of final answers from text: the last balanced ``\boxed{}`` and what follows the last ``####``."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\boxed\s+(?=[^\s{])")


def after_thinking(text: str) -> str:
    """The text after the last ``</think>``; the whole text if there is none."""
    return text.rpartition("</think>")[2]


def last_boxed(text: str) -> str | None:
    r"""The content of the last balanced ``\boxed{...}`` (or ``\fbox{...}``) after the last ``</think>``.

    Braces that a backslash escapes don't count; a box that is never closed is passed over. ``\boxed 5`` is read too.

    Example:
        ``last_boxed(r"so \boxed{1} or rather \boxed{\frac{1}{2}}") == r"\frac{1}{2}"``
    """
    text = after_thinking(text)
    closings = _closings(text)
    for match in reversed(list(_BOX.finditer(text))):
        if not match.group().endswith("{"):
            return text[match.end() :].split(None, 1)[0].rstrip(".,$")
        if match.end() - 1 in closings:
            return text[match.end() : closings[match.end() - 1]].strip()
    return None


def last_hash(text: str) -> str | None:
    """The first line after the last ``####`` (GSM8K's answer marker) that follows the last ``</think>``."""
    _, separator, rest = after_thinking(text).rpartition("####")
    lines = rest.strip().splitlines()
    return lines[0].strip() if separator and lines else None


def _closings(text: str) -> dict[int, int]:
    """Index of every brace that is closed to the index of the brace that closes it, in one pass."""
    opened: list[int] = []
    closed: dict[int, int] = {}
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened:
            closed[opened.pop()] = match.start()
    return closed
