r"""Whether two LaTeX answers are mathematically equal, by math-verify; runs in a worker that may be killed.

Only math-verify's LaTeX grammar reads what a model wrote: its other reader hands text to Python's ``eval``.
"""

from __future__ import annotations

import re
from typing import Any

from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict

RELATIVE = 1e-6
"""Two numbers whose relative difference is larger than this are different, however small both are."""
_SIGNS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_LOST_BACKSLASH = re.compile(r"(?<![\\a-zA-Z])(sqrt|frac|dfrac|tfrac|binom)(?=\s*\{)")
_RAISED_FACTORIAL = re.compile(r"(\d+|[a-zA-Z])!(?=\s*\^)")
_ABOUT = re.compile(r"^\\boxed\{\s*\\(?:approx|simeq|sim)(?![a-zA-Z])")
_ZERO_FRACTION = re.compile(r"(?<![\d.])(\d+)\.0+(?![\d.])")


def compared(question: NeedsSymbolicCheck) -> Verdict:
    """The verdict on one check: ``math_verify`` with a score, ``gold_unparseable`` or ``error``.

    Both directions count, since ``1<x<2`` and ``(1,2)`` are one answer whichever of them is the gold.
    """
    gold = _parsed(_spelled(question.gold))
    if not gold:
        return Verdict(0.0, "gold_unparseable", question.extracted)
    answer = _parsed(question.answer if question.bare else _spelled(question.answer), question.bare)
    if not answer:
        return Verdict(0.0, "error", question.extracted)
    return Verdict(float(_same(gold, answer)), "math_verify", question.extracted)


def _spelled(answer: str) -> str:
    r"""An answer with the notation that math-verify's grammar does not read rewritten.

    A backslash lost before ``sqrt{``, a raised factorial, a leading ``\approx``, a zero fraction (``14.0``), a full
    stop before the closing brace, and ``a\pm b`` as the list ``a+b, a-b`` (``\mp`` with the opposite sign).
    """
    answer = _LOST_BACKSLASH.sub(r"\\\1", answer)
    answer = _RAISED_FACTORIAL.sub(r"(\1!)", _ABOUT.sub(r"\\boxed{", answer))
    answer = _ZERO_FRACTION.sub(r"\1", answer)
    answer = re.sub(r"\.\s*\}$", "}", answer)
    if not _SIGNS.search(answer):
        return answer
    inside = answer.removeprefix("\\boxed{").removesuffix("}")
    parts = [
        signed
        for part in inside.split(",")
        for signed in ([_signed(part, "+"), _signed(part, "-")] if _SIGNS.search(part) else [part])
    ]
    return "\\boxed{" + ", ".join(parts) + "}"


def _signed(part: str, sign: str) -> str:
    return _SIGNS.sub(lambda match: sign if match[1] == "pm" else {"+": "-", "-": "+"}[sign], part)


def _parsed(text: str, bare: bool = False) -> list[Any]:
    """The expressions that math-verify reads, best first, then the text itself; ``i`` is the imaginary unit."""
    from math_verify import LatexExtractionConfig, parse
    from sympy import Basic, Expr, I, nan, zoo

    parsed = parse(text, [LatexExtractionConfig(try_extract_without_anchor=bare)], parsing_timeout=None)
    # 1:00 reads as 1/0, and all undefined values are one object: only the text tells them apart.
    parsed = [expression for expression in parsed if not (isinstance(expression, Basic) and expression.has(zoo, nan))]
    # math-verify gives i other assumptions in 14-i than in 14-1i, and then they differ.
    return [
        expression.subs({symbol: I for symbol in expression.free_symbols if symbol.name == "i"})
        if isinstance(expression, Expr)
        else expression
        for expression in parsed
    ]


def _same(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify
    from sympy import Rational

    if gold[0] == answer[0]:
        return True
    percent = any("%" in str(text) for text in (gold[-1], answer[-1]))  # 28 % may be meant as 28, and only then
    if not percent and all(_is_number(side[0]) for side in (gold, answer)):
        left, right = (side[0].doit() for side in (gold, answer))
        if isinstance(left, Rational) and isinstance(right, Rational):
            return bool(left == right)
        if _gap(left, right) > RELATIVE:
            return False
    return any(
        verify(left, right, allow_set_relation_comp=True, numeric_precision=15, timeout_seconds=None)
        for left, right in ((gold, answer), (answer, gold))
    )


def _is_number(expression: Any) -> bool:
    from sympy import Expr

    return isinstance(expression, Expr) and not expression.free_symbols


def _gap(left: Any, right: Any) -> float:
    """Relative difference of two numbers; 0 where one has no finite value.

    math-verify compares six decimals, to which 2^-99 equals 2^-98.
    """
    values = [number.evalf(15) for number in (left, right)]
    if not all(value.is_number and value.is_finite for value in values):
        return 0.0
    larger = max(abs(value) for value in values)
    return float(abs(values[0] - values[1]) / larger) if larger else 0.0
