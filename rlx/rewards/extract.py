r"""Extraction of final answers from text: the last ``\boxed{}`` or boxes, and what follows the last ``####``."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\boxed\s+(?=[^\s{])")
_SENTENCE_END = re.compile(r"[.!?][\"')\]}$*\\]*\s")
_LINK_WORDS = re.compile(
    r"\\(?:quad|qquad|text|mathrm|textbf|mbox|begin|end|left|right|item)(?![a-zA-Z])|\b(?:and|or)\b"
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_RUN = re.compile(r"\S*")
_CORRECTION = re.compile(r"\b(?:then|wait|actually|rather|instead|correct(?:ion|ed|ing)|no)\b", re.IGNORECASE)
_PROSE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_NAME = re.compile(r"(?<![\w}])(\\?[a-zA-Z]+(?:_(?:\w|\{\w+\}))?'?(?:\([a-z]\))?)\s*=\s*$")


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
    boxes = _boxes(text)
    if not boxes:
        return None
    _, start, end, _ = boxes[-1]
    return text[start:end].strip()


def boxed_answer(text: str) -> str | None:
    r"""The answer that the last boxes after the last ``</think>`` give together; see ``last_boxed`` for one box.

    Boxes of one sentence, or on successive lines without words between them, are one answer: its parts are joined with
    commas, so all of them must be right. A box in a later sentence or paragraph, or behind a word such as ``rather``,
    replaces the earlier ones.

    Example:
        ``boxed_answer(r"So $a=\boxed{3}$ and $b=\boxed{4}$.") == "a=3, b=4"``
    """
    text = after_thinking(text)
    if "\\fbox" not in text and text.find("\\boxed") == text.rfind("\\boxed"):
        return last_boxed(text)
    boxes = _innermost(_boxes(text))
    if not boxes:
        return None
    first = len(boxes) - 1
    while first and _one_answer(text, boxes[first - 1], boxes[first]):
        first -= 1
    group = boxes[first:]
    contents = [text[start:end].strip() for _, start, end, _ in group]
    if len(set(contents)) == 1:
        return contents[0]
    return ", ".join(_named(text, box, content) for box, content in zip(group, contents, strict=True))


def last_hash(text: str) -> str | None:
    """The first line after the last ``####`` (GSM8K's answer marker) that follows the last ``</think>``."""
    _, separator, rest = after_thinking(text).rpartition("####")
    lines = rest.strip().splitlines()
    return lines[0].strip() if separator and lines else None


def _closings(text: str, start: int) -> dict[int, int]:
    """Index of every brace from ``start`` on that is closed to the index of the brace that closes it, in one pass."""
    opened: list[int] = []
    closed: dict[int, int] = {}
    for match in _BRACE.finditer(text, start):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened:
            closed[opened.pop()] = match.start()
    return closed


def _boxes(text: str) -> list[tuple[int, int, int, int]]:
    """Every closed box: where its command, its content, the end of its content and the text after it begin."""
    matches = list(_BOX.finditer(text))
    closings = _closings(text, matches[0].start()) if matches else {}
    boxes = []
    for match in matches:
        start = match.end()
        if not match.group().endswith("{"):
            run = _RUN.match(text, start)
            end = start + len(run[0].rstrip(".,$") if run else "")
            boxes.append((match.start(), start, end, end))
        elif start - 1 in closings:
            boxes.append((match.start(), start, closings[start - 1], closings[start - 1] + 1))
    return boxes


def _innermost(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """The boxes, in the order of the text, that hold no other box."""
    return [box for number, box in enumerate(boxes) if number + 1 == len(boxes) or boxes[number + 1][0] >= box[3]]


def _one_answer(text: str, box: tuple[int, int, int, int], following: tuple[int, int, int, int]) -> bool:
    """Return whether two successive boxes are parts of one answer."""
    between = text[box[3] : following[0]]
    if _SENTENCE_END.search(between) or re.search(r"\n\s*\n", between):
        return False
    if _CORRECTION.search(between):
        return bool(_name_before(text, box) and _name_before(text, following))
    return "\n" not in between or not _PROSE.search(_LINK_WORDS.sub(" ", between))


def _named(text: str, box: tuple[int, int, int, int], content: str) -> str:
    """The content of a box, with the name that an equation in front of the box gives to it."""
    name = None if "=" in content else _name_before(text, box)
    return f"{name}={content}" if name else content


def _name_before(text: str, box: tuple[int, int, int, int]) -> str | None:
    r"""The name in an equation that ends at a box: a for ``a = \boxed{3}``, none for ``2+a = \boxed{3}``."""
    before = text[max(0, box[0] - 40) : box[0]]
    name = _NAME.search(before)
    operators = ("+", "-", "*", "/", "^", "=", "<", ">", "{")
    return None if name is None or before[: name.start()].rstrip().endswith(operators) else name[1]
