r"""Whether two answers are equal, by their kinds.

A tuple is never a set, an equation is never its right-hand side unless it defines a name, a ratio is never a number.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd

from rlx.rewards.answers import read_answer
from rlx.rewards.equations import assigned_values, defined_value, same_relation, stated_value
from rlx.rewards.kinds import (
    Answer,
    Approximated,
    Ordered,
    Ratio,
    Relation,
    Union,
    Unordered,
    Value,
    Without,
    Words,
)
from rlx.rewards.real_sets import is_clearly_set, real_set, same_real_set, variable_of
from rlx.rewards.values import number, rational, same_value
from rlx.rewards.wording import same_words

PAIRINGS = 60
"""Lists with more parts that are not plain numbers than this are compared in order."""
_TUPLE_BRACKETS = ("()", "\\langle\\rangle")


def same_answer(gold: Answer, answer: Answer) -> bool:
    """Return whether an answer equals the gold."""
    if isinstance(gold, Approximated):
        return same_answer(gold.exact, answer) or same_answer(gold.decimals, answer)
    if isinstance(answer, Approximated):
        return same_answer(gold, answer.exact) or (_rounded(answer) and same_answer(gold, answer.decimals))
    if is_clearly_set(gold) or is_clearly_set(answer):
        pieces, others = real_set(gold), real_set(answer)
        if pieces is not None and others is not None:
            return len({variable_of(gold), variable_of(answer)} - {None}) < 2 and same_real_set(pieces, others)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return same_words(_defined(gold), _defined(answer))
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _with_relation(gold, answer)
    if isinstance(gold, Unordered) or isinstance(answer, Unordered):
        return _with_list(gold, answer)
    return _same_kind(gold, answer)


def _same_kind(gold: Answer, answer: Answer) -> bool:
    """Equality of two answers of one kind; answers of different kinds are different."""
    if isinstance(gold, Value) and isinstance(answer, Value):
        return _same_marked(gold, answer)
    if isinstance(gold, Ordered) and isinstance(answer, Ordered):
        brackets = gold.opening + gold.closing, answer.opening + answer.closing
        if len(gold.items) == 2 and brackets[0] != brackets[1] and not set(brackets) <= set(_TUPLE_BRACKETS):
            return False  # (0, 1] and (0, 1) are different intervals
        return _in_order(gold.items, answer.items)
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        return {gold.half_day, answer.half_day} != {"a", "p"} and _same_ratio(gold.parts, answer.parts)
    if isinstance(gold, Union) and isinstance(answer, Union):
        return gold.both == answer.both and _same_parts(gold.parts, answer.parts)
    if isinstance(gold, Without) and isinstance(answer, Without):
        return same_answer(gold.base, answer.base) and same_answer(gold.removed, answer.removed)
    return False


def _same_marked(gold: Value, answer: Value) -> bool:
    """Equality of values with percent signs, degrees and units."""
    if gold.unit and answer.unit and gold.unit != answer.unit:
        one, other = rational(gold.latex), rational(answer.latex)
        if gold.unit[0] != answer.unit[0] or one is None or other is None:
            return False
        return one * gold.unit[1] == other * answer.unit[1]
    if gold.sign == answer.sign:
        return same_value(gold.latex, answer.latex)
    if gold.sign and answer.sign:
        return False
    marked, plain = (gold, answer) if gold.sign else (answer, gold)
    if marked.sign == "deg":
        radians = rf"\frac{{({marked.latex}) \cdot \pi}}{{180}}"
        return same_value(marked.latex, plain.latex) or same_value(radians, plain.latex)
    # 28 for 28 %, but 0.5 is 50 % and not 0.5 %, unless the gold has the sign and so the question asks for per cent
    value = number(plain.latex)
    dropped = marked is gold or value is None or not value.is_real or abs(value) > 1
    if dropped and same_value(marked.latex, plain.latex):
        return True
    percent = rational(marked.latex)
    return same_value(rf"\frac{{{marked.latex}}}{{100}}" if percent is None else str(percent / 100), plain.latex)


def _rounded(answer: Approximated) -> bool:
    """Return whether the decimals of an answer are its exact value to within their last digit."""
    exact = answer.exact
    latex = stated_value(exact) if isinstance(exact, Relation) else exact.latex if isinstance(exact, Value) else None
    if latex is None or not isinstance(answer.decimals, Value):
        return False
    value, decimals = number(latex), rational(answer.decimals.latex)
    if value is None or decimals is None:
        return False
    last_digit = 10.0 ** -len(answer.decimals.latex.strip().partition(".")[2])
    return bool(abs(value - number(answer.decimals.latex)) <= last_digit)


def _defined(answer: Answer) -> Answer:
    """The value of a definition; any other answer as it is."""
    value = defined_value(answer) if isinstance(answer, Relation) else None
    return answer if value is None else read_answer(value)


def _with_relation(gold: Answer, answer: Answer) -> bool:
    """Equality where one side is an equation or an inequality."""
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        return same_relation(gold, answer, same_answer)
    if isinstance(gold, Relation):
        value = defined_value(gold)
        return value is not None and same_answer(read_answer(value), answer)
    if isinstance(answer, Relation):
        value = stated_value(answer)
        return value is not None and same_answer(gold, read_answer(value))
    return False


def _with_list(gold: Answer, answer: Answer) -> bool:
    """Equality where one side is a set or a list."""
    values, others = assigned_values(gold), assigned_values(answer)
    if values and others:
        return set(values) == set(others) and all(
            same_answer(read_answer(values[name]), read_answer(others[name])) for name in values
        )
    if values:  # the gold a=3, b=4 is answered by (3, 4) and by 3, 4, in this order
        if not isinstance(answer, Ordered | Unordered) or (isinstance(answer, Unordered) and answer.braces):
            return False
        return _in_order([read_answer(value) for value in values.values()], answer.items)
    if others:
        items = tuple(read_answer(value) for value in others.values())
        if isinstance(gold, Ordered):
            return _in_order(gold.items, items)
        answer = Unordered(items)
    if isinstance(gold, Ordered) and isinstance(answer, Unordered):
        return _is_pair_without_brackets(answer, gold) and _in_order(gold.items, answer.items)
    if isinstance(gold, Unordered) and isinstance(answer, Ordered):
        return _is_pair_without_brackets(gold, answer) and _in_order(gold.items, answer.items)
    left = gold.items if isinstance(gold, Unordered) else (gold,)
    right = answer.items if isinstance(answer, Unordered) else (answer,)
    if any(isinstance(part, Value) and "\\ldots" in part.latex for part in left + right):
        return _in_order(left, right)
    return _same_parts(left, right)


def _is_pair_without_brackets(items: Unordered, tuple_: Ordered) -> bool:
    """Whether a list may be meant as a tuple: 3, 1 for (3, 1). A set with braces never is, nor a list of one tuple."""
    return (
        not items.braces
        and tuple_.opening + tuple_.closing in _TUPLE_BRACKETS
        and not any(isinstance(item, Ordered) for item in items.items)
    )


def _in_order(gold: list[Answer] | tuple[Answer, ...], answer: list[Answer] | tuple[Answer, ...]) -> bool:
    return len(gold) == len(answer) and all(map(same_answer, gold, answer))


def _same_parts(gold: tuple[Answer, ...], answer: tuple[Answer, ...]) -> bool:
    """Whether each part of either list equals one of the other; repeated parts count once."""
    numbers, others = _numbers(gold), _numbers(answer)
    if numbers is not None and others is not None:
        if numbers == others:
            return True
        if len(numbers) != len(others) or len(numbers) > PAIRINGS:
            return False
    if len(gold) > PAIRINGS or len(answer) > PAIRINGS:
        return _in_order(gold, answer)
    return all(any(same_answer(part, other) for other in answer) for part in gold) and all(
        any(same_answer(part, other) for part in gold) for other in answer
    )


def _numbers(parts: tuple[Answer, ...]) -> set[Fraction] | None:
    """The parts of a list of plain numbers; None for other lists."""
    values = {rational(part.latex) if isinstance(part, Value) and not part.sign else None for part in parts}
    return None if None in values else {value for value in values if value is not None}


def _same_ratio(gold: tuple[str, ...], answer: tuple[str, ...]) -> bool:
    """3:4 equals 6:8; a time of day such as 4:05 equals itself alone."""
    if len(gold) != len(answer):
        return False
    if all(map(same_value, gold, answer)):
        return True
    left = [value for part in gold if (value := rational(part))]
    right = [value for part in answer if (value := rational(part))]
    if len(left) < len(gold) or len(right) < len(answer) or any(re.match(r"0\d", part) for part in gold + answer):
        return False
    lowest_terms = any(
        all(value.denominator == 1 for value in side) and gcd(*(value.numerator for value in side)) == 1
        for side in (left, right)
    )
    return lowest_terms and len({one / other for one, other in zip(left, right, strict=True)}) == 1
