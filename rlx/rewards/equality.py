r"""Whether two answers are equal, by their kinds.

A tuple is never a set, an equation is never its right-hand side unless it defines a name, a ratio is never a number.
"""

from __future__ import annotations

import re
from math import gcd

from rlx.rewards.answers import Answer, Approximated, Ordered, Ratio, Relation, Union, Unordered, Value, Without, Words, read_answer
from rlx.rewards.equations import assigned_values, defined_value, same_relation, stated_value
from rlx.rewards.real_sets import is_clearly_set, real_set, same_real_set, variable_of
from rlx.rewards.values import number, rational, same_value

NEARBY = 0.01
"""Relative difference up to which decimals count as the rounded value of what stands in front of them."""
PAIRINGS = 60
"""Lists with more parts that are not plain numbers than this are compared in order."""
_NOTHING = re.compile(
    r"(?:there (?:is|are) )?(?:no|none|has no|have no)(?: such| real| valid| possible)?"
    r"(?: solutions?| roots?| values?| numbers?| integers?)?(?: exists?)?|(?:the )?(?:empty|null) set"
)
_SYNONYMS = {"true": "yes", "false": "no", "dne": "does not exist"}


def same_answer(gold: Answer, answer: Answer) -> bool:
    """Return whether an answer equals the gold."""
    if isinstance(gold, Approximated):
        return same_answer(gold.exact, answer) or same_answer(gold.decimals, answer)
    if isinstance(answer, Approximated):
        return same_answer(gold, answer.exact) or (_rounded(answer) and same_answer(gold, answer.decimals))
    if is_clearly_set(gold) or is_clearly_set(answer):
        pieces = real_set(gold), real_set(answer)
        variables = {variable_of(gold), variable_of(answer)} - {None}
        if pieces[0] is not None and pieces[1] is not None:
            return len(variables) < 2 and same_real_set(pieces[0], pieces[1])
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _same_words(gold, answer)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _with_relation(gold, answer)
    if isinstance(gold, Unordered) or isinstance(answer, Unordered):
        return _with_list(gold, answer)
    if isinstance(gold, Ordered) and isinstance(answer, Ordered):
        return _same_tuple(gold, answer)
    if isinstance(gold, Ratio) and isinstance(answer, Ratio):
        halves = {gold.half_day, answer.half_day}
        return halves != {"a", "p"} and _same_ratio(gold.parts, answer.parts)
    if isinstance(gold, Union) and isinstance(answer, Union):
        return gold.both == answer.both and _same_parts(list(gold.parts), list(answer.parts))
    if isinstance(gold, Without) and isinstance(answer, Without):
        return same_answer(gold.base, answer.base) and same_answer(gold.removed, answer.removed)
    if isinstance(gold, Value) and isinstance(answer, Value):
        return _same_marked(gold, answer)
    return False


def _rounded(answer: Approximated) -> bool:
    """Return whether the decimals of an answer are near to its exact value."""
    exact = answer.exact
    latex = (stated_value(exact) if isinstance(exact, Relation) else None) or _latex(exact)
    values = [number(side) if side else None for side in (latex, _latex(answer.decimals))]
    if values[0] is None or values[1] is None:
        return False
    return bool(abs(values[0] - values[1]) <= NEARBY * abs(values[0]))


def _same_marked(gold: Value, answer: Value) -> bool:
    """Equality of values with percent signs, degrees and units."""
    if gold.unit and answer.unit and gold.unit != answer.unit:
        sizes = rational(gold.latex), rational(answer.latex)
        if gold.unit[0] != answer.unit[0] or sizes[0] is None or sizes[1] is None:
            return False
        return sizes[0] * gold.unit[1] == sizes[1] * answer.unit[1]
    if gold.mark == answer.mark:
        return same_value(gold.latex, answer.latex)
    if {gold.mark, answer.mark} == {"%", "deg"}:
        return False
    marked, plain = (gold, answer) if gold.mark else (answer, gold)
    if marked.mark == "deg":
        converted = rf"\frac{{({marked.latex}) \cdot \pi}}{{180}}"
        return same_value(marked.latex, plain.latex) or same_value(converted, plain.latex)
    # 28 for 28 %, but 0.5 is 50 % and not 0.5 %, unless the gold has the sign and so the question asks for per cent
    value = number(plain.latex)
    dropped = marked is gold or value is None or not value.is_real or abs(value) > 1
    if dropped and same_value(marked.latex, plain.latex):
        return True
    hundredths = rational(marked.latex)
    as_number = f"\\frac{{{marked.latex}}}{{100}}" if hundredths is None else str(hundredths / 100)
    return same_value(as_number, plain.latex)


def _same_words(gold: Answer, answer: Answer) -> bool:
    """Equality where one side is in words; ``no solution`` is the empty set."""
    texts = [_text(side) for side in (gold, answer)]
    empty = [isinstance(side, Unordered) and not side.items for side in (gold, answer)]
    nothing = [
        isinstance(side, Words) and bool(_NOTHING.fullmatch(text))
        for side, text in zip((gold, answer), texts, strict=True)
    ]
    if any(empty) or (all(nothing) and "no" not in texts):
        return all(one or (other and text != "no") for one, other, text in zip(empty, nothing, texts, strict=True))
    if "" in texts:
        return False
    if _SYNONYMS.get(texts[0], texts[0]) == _SYNONYMS.get(texts[1], texts[1]):
        return True
    # abc may be a product, and then its factors may change places
    factors = (
        all(re.fullmatch(r"[a-z]{3,4}", text) for text in texts)
        and isinstance(gold, Words)
        and isinstance(answer, Words)
    )
    return (
        factors
        and gold.text == gold.text.lower()
        and sorted(texts[0]) == sorted(texts[1])
        and len(set(texts[0])) == len(texts[0])
    )


def _latex(answer: Answer) -> str:
    return answer.latex if isinstance(answer, Value) else ""


def _text(answer: Answer) -> str:
    if isinstance(answer, Relation):  # \text{Name} = \text{Tuesday}
        value = defined_value(answer)
        answer = read_answer(value) if value else answer
    text = answer.text if isinstance(answer, Words) else answer.latex if isinstance(answer, Value) else ""
    words = re.sub(r"[^\w\\+\-*/=<>.%]+", " ", text.lower()).strip(" .").split()
    return " ".join(word for word in words if word not in ("the", "a", "an"))


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
    named = [assigned_values(side) if isinstance(side, Unordered) else None for side in (gold, answer)]
    if named[0] and named[1]:
        if set(named[0]) == set(named[1]):
            return all(same_answer(read_answer(named[0][name]), read_answer(named[1][name])) for name in named[0])
        return False
    for values, other, in_order in ((named[0], answer, True), (named[1], gold, False)):
        if values is None:
            continue
        items = [read_answer(value) for value in values.values()]
        if isinstance(other, Ordered):
            sides = (items, list(other.items)) if in_order else (list(other.items), items)
            return len(items) == len(other.items) and all(map(same_answer, *sides))
        if in_order and isinstance(other, Unordered):
            return not other.braces and len(items) == len(other.items) and all(map(same_answer, items, other.items))
        if not in_order:
            answer = Unordered(tuple(items))
    if isinstance(gold, Ordered) or isinstance(answer, Ordered):
        tuple_, other = (gold, answer) if isinstance(gold, Ordered) else (answer, gold)
        if isinstance(other, Unordered) and not any(isinstance(item, Ordered) for item in other.items):
            # 3, 1 is the pair (3, 1) without its brackets; a set is never a tuple
            in_order = zip(tuple_.items, other.items, strict=False)
            return (
                not other.braces
                and tuple_.opening + tuple_.closing in ("()", "\\langle\\rangle")
                and len(tuple_.items) == len(other.items)
                and all(same_answer(one, two) for one, two in in_order)
            )
    parts = [list(side.items) if isinstance(side, Unordered) else [side] for side in (gold, answer)]
    if any(isinstance(part, Value) and "\\ldots" in part.latex for side in parts for part in side):
        return len(parts[0]) == len(parts[1]) and all(map(same_answer, *parts))
    return _same_parts(*parts)


def _same_parts(gold: list[Answer], answer: list[Answer]) -> bool:
    """Whether each part of either list equals one of the other; repeated parts count once."""
    numbers = [
        {rational(part.latex) if isinstance(part, Value) and not part.mark else None for part in side}
        for side in (gold, answer)
    ]
    if None not in numbers[0] | numbers[1]:
        if numbers[0] == numbers[1]:
            return True
        if len(numbers[0]) != len(numbers[1]) or len(numbers[0]) > PAIRINGS:
            return False
    if len(gold) > PAIRINGS or len(answer) > PAIRINGS:
        return len(gold) == len(answer) and all(map(same_answer, gold, answer))
    return _each_in(gold, answer, swapped=False) and _each_in(answer, gold, swapped=True)


def _each_in(parts: list[Answer], others: list[Answer], swapped: bool) -> bool:
    return all(
        any(same_answer(other, part) if swapped else same_answer(part, other) for other in others) for part in parts
    )


def _same_tuple(gold: Ordered, answer: Ordered) -> bool:
    brackets = [side.opening + side.closing for side in (gold, answer)]
    if brackets[0] != brackets[1] and len(gold.items) == 2 and "\\langle\\rangle" not in brackets:
        return False
    return len(gold.items) == len(answer.items) and all(map(same_answer, gold.items, answer.items))


def _same_ratio(gold: tuple[str, ...], answer: tuple[str, ...]) -> bool:
    """3:4 equals 6:8; a time of day such as 4:05 equals itself alone."""
    if len(gold) != len(answer):
        return False
    if all(map(same_value, gold, answer)):
        return True
    values = [[rational(part) for part in side] for side in (gold, answer)]
    flat = [value for side in values for value in side]
    if None in flat or 0 in flat or any(re.match(r"0\d", part) for part in gold + answer):
        return False
    reduced = any(all(value.denominator == 1 for value in side) and gcd(*map(int, side)) == 1 for side in values)
    factors = {one / other for one, other in zip(*values, strict=True)}
    return reduced and len(factors) == 1
