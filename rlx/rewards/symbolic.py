r"""Whether two LaTeX answers are mathematically equal; runs in a worker that may be killed.

Answers from a box are read by their kinds (``answers.py``) and compared by them (``equality.py``). For the grader
``math_verify``, which also accepts answers outside of a box, math-verify reads and compares the response itself.
"""

from __future__ import annotations

import re
from typing import Any

from rlx.rewards.answers import read_answer
from rlx.rewards.choice import split_choice
from rlx.rewards.equality import same_answer
from rlx.rewards.extract import boxed_answer
from rlx.rewards.notation import numbers_read, plain_latex
from rlx.rewards.prose import marked_words
from rlx.rewards.values import RELATIVE, is_number
from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict


def compared(question: NeedsSymbolicCheck) -> Verdict:
    """The verdict on one check: ``math_verify`` with a score, ``gold_unparseable`` or ``error``."""
    if question.bare:
        return _by_math_verify(question)
    gold, answer = (_in_box(side) for side in (question.gold, question.answer))
    if not re.search(r"[^\s$.,;]", gold):
        return Verdict(0.0, "gold_unparseable", question.extracted)
    if not re.search(r"[^\s$.,;]", answer):
        return Verdict(0.0, "error", question.extracted)
    return Verdict(float(same_latex(gold, answer)), "math_verify", question.extracted)


def same_latex(gold: str, answer: str) -> bool:
    r"""Return whether two answers without their boxes are equal.

    Example:
        ``same_latex(r"x<2 \\text{ or } x>3", r"(-\\infty,2)\\cup(3,\\infty)")``
    """
    gold, answer = numbers_read(plain_latex(gold), plain_latex(answer))
    decided, gold, answer = split_choice(gold, answer)
    if decided is not None:
        return decided
    sides = [read_answer(marked_words(side)) for side in (gold, answer)]
    return same_answer(sides[0], sides[1])


def _in_box(text: str) -> str:
    inside = text.removeprefix("\\boxed{").removesuffix("}")
    return boxed_answer(inside) or inside


def _by_math_verify(question: NeedsSymbolicCheck) -> Verdict:
    """math-verify's own verdict on a response.

    Both directions count, since ``1<x<2`` and ``(1,2)`` are one answer whichever of them is the gold.
    """
    gold, answer = _parsed(question.gold, False), _parsed(question.answer, True)
    if not gold:
        return Verdict(0.0, "gold_unparseable", question.extracted)
    if not answer:
        return Verdict(0.0, "error", question.extracted)
    return Verdict(float(_same(gold, answer)), "math_verify", question.extracted)


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
    if not percent and all(is_number(side[0]) for side in (gold, answer)):
        left, right = (side[0].doit() for side in (gold, answer))
        if isinstance(left, Rational) and isinstance(right, Rational):
            return bool(left == right)
        if _gap(left, right) > RELATIVE:
            return False
    return any(
        verify(left, right, allow_set_relation_comp=True, numeric_precision=15, timeout_seconds=None)
        for left, right in ((gold, answer), (answer, gold))
    )


def _gap(left: Any, right: Any) -> float:
    """Relative difference of two numbers; 0 where one has no finite value.

    math-verify compares six decimals, to which 2^-99 equals 2^-98.
    """
    values = [number.evalf(15) for number in (left, right)]
    if not all(value.is_number and value.is_finite for value in values):
        return 0.0
    larger = max(abs(value) for value in values)
    return float(abs(values[0] - values[1]) / larger) if larger else 0.0
