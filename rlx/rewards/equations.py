r"""Equations and inequalities: equality up to a factor, and which of them define a name, as ``y = 2x`` does."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from rlx.rewards.answers import MODULUS, read_answer, split
from rlx.rewards.kinds import Answer, Ordered, Relation, Unordered
from rlx.rewards.notation import WORD
from rlx.rewards.values import constant_ratio, number, parsed, same_value

_LETTER = r"(?:[a-zA-Z]|\\[a-zA-Z]+)(?:_(?:\w|\{[^{}]*\}))?'*"
_NAME = re.compile(
    rf"{_LETTER}(?:\s*\^\{{?\s*(?:-1|\([a-z\d]+\)|\\prime)\s*\}}?)?(?:\s*(?:\([^()=]*\)|\[[^=\[\]]*\]))?"
    rf"|\\frac\s*\{{\s*(?:d|\\partial)\s*[a-z]?\s*\}}\s*\{{\s*(?:d|\\partial)\s*[a-z]\s*\}}(?:\s*[a-z])?"
    rf"|(?:m\s*)?\\(?:angle|triangle|overline|widehat|vec|overrightarrow|mathbf|measuredangle)\s*\{{?\s*[A-Za-z]{{1,3}}\s*\}}?"
    rf"|\\frac\s*\{{\s*[A-Z]{{2}}\s*\}}\s*\{{\s*[A-Z]{{2}}\s*\}}|{_LETTER}(?:\s*:\s*{_LETTER})+|[A-Z]{{2}}(?::[A-Z]{{2}})+"
    rf"|\|?[A-Z]{{2,4}}\|?|\[[A-Z]{{3,}}\]"
    rf"|\(\s*{_LETTER}(?:\s*,\s*{_LETTER})+\s*\)"
)
_FUNCTION_NAME = re.compile(rf"{_LETTER}.*\(.*\)")
_COORDINATES = frozenset("xyz")
_LETTER_ROWS = ("abcdefgh", "klmn", "pqrst", "uvwxyz")
Same = Callable[[Answer, Answer], bool]


def defined_value(relation: Relation) -> str | None:
    """The right-hand side of a definition such as ``y = 2x``, ``f(x) = x^2`` or ``D = (0, 1)``; None for others."""
    if not relation.is_equation:
        return None
    first, last = relation.sides[0], relation.sides[-1]
    if _is_name(first) and not _uses(last, first):
        return last
    if len(relation.sides) == 2 and _is_name(last) and number(first) is not None:
        return first
    return None


def stated_value(relation: Relation) -> str | None:
    """The value that an answer such as ``m+n = 101+103 = 204`` states: its last side; None if its sides contradict."""
    if not relation.is_equation:
        return None
    defined, last = defined_value(relation), relation.sides[-1]
    if defined is not None and defined != last:
        return defined  # 5 = x
    constants = [side for side in relation.sides[:-1] if number(side) is not None]
    if any(not same_value(side, last) for side in constants) or _uses(last, relation.sides[0]):
        return None
    return last


def same_relation(gold: Relation, answer: Relation, same: Same) -> bool:
    """Return whether two relations are equal: as equations up to a factor, as inequalities up to a positive one."""
    if "mod" in gold.operators or "mod" in answer.operators:
        return _same_congruence(gold, answer)
    if gold.is_equation and answer.is_equation:
        return _same_equation(gold, answer, same)
    left, right = _oriented(gold), _oriented(answer)
    if len(left.operators) != len(right.operators) or left.operators != right.operators:
        return False
    for one, other in zip(pairwise(left.sides), pairwise(right.sides), strict=True):
        if all(map(same_value, one, other)):
            continue
        ratio = _ratio(one, other)
        positive = ratio is not None and ratio.is_real and ratio > 0
        if not positive and not (ratio is not None and "!=" in left.operators):
            return False
    return True


def assigned_values(answer: Answer) -> dict[str, str] | None:
    """Name to value where every part of a list is a definition of its own name; None for other lists.

    Names that follow each other in the alphabet are sorted: they stand for the coordinates of a tuple in that order.
    Names such as x_1 and x_2 are solutions of one variable, and then the list is an ordinary one.
    """
    if not isinstance(answer, Unordered):
        return None
    values: dict[str, str] = {}
    for item in answer.items:
        value = defined_value(item) if isinstance(item, Relation) else None
        name = re.sub(r"[{}\s]", "", item.sides[0]) if isinstance(item, Relation) else ""
        if value is None or name in values or name.startswith("("):
            return None
        values[name] = value
    if len(values) < 2:
        return None
    bases = {re.sub(r"_.*|'", "", name) for name in values}
    if len(bases) == 1 and all("_" in name for name in values):
        return None
    row = any(all(name in letters for name in values) for letters in _LETTER_ROWS)
    return dict(sorted(values.items())) if row else values


def _same_equation(gold: Relation, answer: Relation, same: Same) -> bool:
    left, right = defined_value(gold), defined_value(answer)
    if left is not None and right is not None:
        names = [re.sub(r"[{}\s]", "", relation.sides[0]) for relation in (gold, answer)]
        if len(_COORDINATES & set(names)) == 2:  # x = 5 and y = 5 are different lines
            return _is_multiple(gold, answer)
        if same(read_answer(left), read_answer(right)):
            return True
        if _FUNCTION_NAME.fullmatch(gold.sides[0]) or not _structured(left):
            return _renamed(gold, answer) or _is_multiple(gold, answer)
        return False
    if _is_multiple(gold, answer):
        return True
    return (
        left is not None
        and right is None
        and len(answer.sides) > 2
        and same(read_answer(left), read_answer(answer.sides[-1]))
    )


def _renamed(gold: Relation, answer: Relation) -> bool:
    r"""Whether two definitions of functions differ in the name of the argument alone: ``f(x) = x`` and ``f(y) = y``."""
    arguments = [re.fullmatch(rf"{_LETTER}\s*\(\s*([a-z])\s*\)", relation.sides[0]) for relation in (gold, answer)]
    if arguments[0] is None or arguments[1] is None or arguments[0][1] == arguments[1][1]:
        return False
    renamed = re.sub(rf"(?<![\\a-zA-Z]){arguments[1][1]}(?![a-zA-Z])", arguments[0][1], answer.sides[-1])
    return same_value(gold.sides[-1], renamed)


def _is_multiple(gold: Relation, answer: Relation) -> bool:
    """Whether the differences of the sides of two equations are constant multiples of each other."""
    return _ratio((gold.sides[0], gold.sides[-1]), (answer.sides[0], answer.sides[-1])) is not None


def _ratio(gold: tuple[str, ...], answer: tuple[str, ...]) -> Any:
    """The constant by which the difference of two sides differs from that of two others; None without one."""
    from sympy import Expr, fraction, together

    sides = [parsed(side) for side in (*gold, *answer)]
    if not all(isinstance(side, Expr) for side in sides):
        return None
    left, right = sides[0] - sides[1], sides[2] - sides[3]
    if left.free_symbols != right.free_symbols or not left.free_symbols:
        return None
    ratio = constant_ratio(left, right)
    if ratio is None:
        ratio = constant_ratio(*(fraction(together(side.doit()))[0] for side in (left, right)))
    return ratio


def _oriented(relation: Relation) -> Relation:
    """The relation written with < and <= instead of > and >=."""
    turned = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
    if not any(operator in (">", ">=") for operator in relation.operators):
        return relation
    return Relation(
        relation.sides[::-1], tuple(turned.get(operator, operator) for operator in relation.operators[::-1])
    )


def _same_congruence(gold: Relation, answer: Relation) -> bool:
    """X = 3 (mod 7) equals x = 10 (mod 7)."""
    sides = [MODULUS.fullmatch(relation.sides[-1]) for relation in (gold, answer)]
    if sides[0] is None or sides[1] is None:
        return gold.sides == answer.sides
    values = [number(side[part]) for side in sides if side for part in ("value", "modulus")]
    if any(value is None or not value.is_Integer for value in values) or not values[1]:
        return gold.sides == answer.sides
    return bool(values[1] == values[3] and (values[0] - values[2]) % values[1] == 0)


def _is_name(side: str) -> bool:
    words = side.replace(WORD, "").strip()
    if WORD in side and re.fullmatch(r"[A-Za-z ]+", words):
        return True
    return bool(_NAME.fullmatch(side.strip())) and number(side) is None


def _uses(side: str, name: str) -> bool:
    """Whether a side has the variable that the name is: ``y = 2y - 1`` defines nothing."""
    symbol = name.strip()
    return len(symbol) == 1 and symbol.isalpha() and bool(re.search(rf"(?<![\\a-zA-Z]){symbol}(?![a-zA-Z])", side))


def _structured(latex: str) -> bool:
    """Whether a right-hand side is a tuple or a set rather than an expression."""
    return isinstance(read_answer(latex), Ordered | Unordered) or len(split(latex, frozenset([","]))[0]) > 1
