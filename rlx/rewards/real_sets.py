"""Sets of real numbers: intervals, inequalities in one variable and their unions, in one form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cmp_to_key
from itertools import pairwise
from typing import Any

from rlx.rewards.kinds import Answer, Ordered, Relation, Union, Unordered, Value, Without, Words
from rlx.rewards.values import EXACT, evaluated, number, parsed

_ALL = frozenset(
    ["all real numbers", "all reals", "all real values", "real numbers", "the real numbers", "any real number"]
)
_BOUNDS = {"<": (True, True), "<=": (False, True), ">": (True, False), ">=": (False, False)}


@dataclass(frozen=True, slots=True)
class Piece:
    """One interval; a single number is a closed interval of length 0.

    Example:
        ``Piece(low=0, high=1, low_open=False, high_open=True)`` is [0, 1).
    """

    low: Any
    high: Any
    low_open: bool
    high_open: bool


def real_set(answer: Answer) -> list[Piece] | None:
    """The disjoint intervals of an answer, in order; None for an answer that is no set of real numbers."""
    pieces = _pieces(answer)
    return None if pieces is None else _merged(pieces)


def is_clearly_set(answer: Answer) -> bool:
    """Return whether an answer can mean nothing but a set of real numbers: ``(1, 2)`` may be a point."""
    if isinstance(answer, Ordered):
        return len(answer.items) == 2 and (answer.opening, answer.closing) in (("(", "]"), ("[", ")"), ("[", "]"))
    if isinstance(answer, Relation):
        return not answer.is_equation
    return isinstance(answer, Union | Without) or (isinstance(answer, Value | Words) and _pieces(answer) is not None)


def same_real_set(gold: list[Piece], answer: list[Piece]) -> bool:
    """Return whether two sets have the same intervals."""
    return len(gold) == len(answer) and all(
        (one.low_open, one.high_open) == (other.low_open, other.high_open)
        and _compare(one.low, other.low) == 0
        and _compare(one.high, other.high) == 0
        for one, other in zip(gold, answer, strict=True)
    )


def variable_of(answer: Answer) -> str | None:
    """The variable of an inequality, None for other sets."""
    if isinstance(answer, Union) and answer.parts:
        return variable_of(answer.parts[0])
    if isinstance(answer, Relation):
        return next((side for side in answer.sides if side.strip("\\ ").isalpha() and number(side) is None), None)
    return None


def _pieces(answer: Answer) -> list[Piece] | None:
    if isinstance(answer, Ordered):
        if len(answer.items) != 2 or answer.opening not in "([" or answer.closing not in ")]":
            return None
        low, high = (number(item.latex) if isinstance(item, Value) else None for item in answer.items)
        if low is None or high is None or _compare(low, high) > 0:
            return None
        return [Piece(low, high, answer.opening == "(", answer.closing == ")")]
    if isinstance(answer, Unordered):
        return _points(answer)
    if isinstance(answer, Relation):
        return _inequality(answer)
    if isinstance(answer, Without):
        base, removed = _pieces(answer.base), _pieces(answer.removed)
        return None if base is None or removed is None else _intersection(base, _complement(removed))
    if isinstance(answer, Union):
        return _union(answer)
    text = answer.text if isinstance(answer, Words) else answer.latex if isinstance(answer, Value) else ""
    if " ".join(text.lower().split()) in _ALL or text.replace("{", "").replace("}", "").replace(" ", "") == "\\mathbbR":
        return _real_line()
    return None


def _points(answer: Unordered) -> list[Piece] | None:
    """The numbers of a set, and the intervals of a list of which one has no end."""
    intervals = [_pieces(item) for item in answer.items if isinstance(item, Ordered)]
    points = [number(item.latex) if isinstance(item, Value) else None for item in answer.items]
    if not intervals or answer.braces:
        return None if None in points else [Piece(point, point, False, False) for point in points]
    if len(intervals) < len(points) or None in intervals:
        return None
    pieces = [piece for interval in intervals if interval for piece in interval]
    return pieces if any(piece.low.is_infinite or piece.high.is_infinite for piece in pieces) else None


def _union(answer: Union) -> list[Piece] | None:
    parts = [_pieces(part) for part in answer.parts]
    sets = [part for part in parts if part is not None]
    if len(sets) < len(parts) or len({variable_of(part) for part in answer.parts} - {None}) > 1:
        return None
    if answer.both:
        common = sets[0]
        for part in sets[1:]:
            common = _intersection(common, part)
        if common:
            return common
    return [piece for part in sets for piece in part]


def _inequality(relation: Relation) -> list[Piece] | None:
    """The solutions of an inequality between a variable and numbers, such as ``-2 <= x < 7`` or ``x != 5``."""
    bounds = [number(side) for side in relation.sides]
    variables = [number_ for number_, bound in enumerate(bounds) if bound is None]
    if len(variables) != 1 or not _is_unknown(parsed(relation.sides[variables[0]])):
        solved = [_solved(*pair) for pair in zip(pairwise(relation.sides), relation.operators, strict=True)]
        common = _real_line()
        for pieces in solved:
            if pieces is None:
                return None
            common = _intersection(common, pieces)
        return common
    position = variables[0]
    solutions = _real_line()
    for index, operator in enumerate(relation.operators):
        if position not in (index, index + 1):
            return None
        bound = bounds[index + 1 if position == index else index]
        if operator == "!=":
            solutions = _intersection(solutions, _complement([Piece(bound, bound, False, False)]))
        elif operator in _BOUNDS:
            is_open, below = _BOUNDS[operator]
            low, high = _real_line()[0].low, _real_line()[0].high
            upper = below if position == index else not below
            piece = Piece(low, bound, True, is_open) if upper else Piece(bound, high, is_open, True)
            solutions = _intersection(solutions, [piece])
        else:
            return None
    return solutions


def _is_unknown(expression: Any) -> bool:
    """Return whether an expression is a variable or the value of a function without a formula, such as f(x)."""
    from sympy.core.function import AppliedUndef

    return getattr(expression, "is_Symbol", False) or isinstance(expression, AppliedUndef)


def _solved(pair: tuple[str, str], operator: str) -> list[Piece] | None:
    """The solutions of an inequality of at most second degree in one variable, or with absolute values."""
    from sympy import Abs, Expr, FiniteSet, Interval, Poly, Rel, S
    from sympy import Union as SympyUnion

    sides = [parsed(side) for side in pair]
    if operator not in _BOUNDS or not all(isinstance(side, Expr) for side in sides):
        return None
    difference = sides[0] - sides[1]
    symbols = difference.free_symbols
    if len(symbols) != 1:
        return None
    symbol = next(iter(symbols))
    degree = Poly(difference, symbol).degree() if difference.is_polynomial(symbol) else 3
    if degree > 2 and not (difference.has(Abs) and difference.count_ops() < 20 and not difference.atoms(Abs) & symbols):
        return None
    try:
        solutions = Rel(sides[0], sides[1], operator).as_set()
    except (NotImplementedError, TypeError, ValueError):
        return None
    pieces = []
    for part in solutions.args if isinstance(solutions, SympyUnion) else [solutions]:
        if isinstance(part, Interval):
            low, high = evaluated(part.start), evaluated(part.end)
            pieces.append(Piece(low, high, bool(part.left_open), bool(part.right_open)))
        elif isinstance(part, FiniteSet):
            pieces += [Piece(evaluated(point), evaluated(point), False, False) for point in part.args]
        elif part is not S.EmptySet:
            return None
    return pieces


def _real_line() -> list[Piece]:
    from sympy import oo

    return [Piece(-oo, oo, True, True)]


def _compare(one: Any, other: Any, tolerance: float = EXACT) -> int:
    """-1, 0 or 1 as the first number is smaller, equal or larger."""
    if one == other:
        return 0
    if not one.is_infinite and not other.is_infinite and abs(one - other) <= tolerance * max(abs(one), abs(other)):
        return 0
    return -1 if one < other else 1


def _merged(pieces: list[Piece]) -> list[Piece]:
    """The union as disjoint intervals in order."""

    def order(one: Piece, other: Piece) -> int:
        return _compare(one.low, other.low) or one.low_open - other.low_open

    merged: list[Piece] = []
    for piece in sorted(pieces, key=cmp_to_key(order)):
        last = merged[-1] if merged else None
        gap = 1 if last is None else _compare(piece.low, last.high)
        if last is None or gap > 0 or (gap == 0 and piece.low_open and last.high_open):
            merged.append(piece)
            continue
        longer = _compare(piece.high, last.high)
        if longer > 0:
            merged[-1] = replace(last, high=piece.high, high_open=piece.high_open)
        elif longer == 0:
            merged[-1] = replace(last, high_open=last.high_open and piece.high_open)
    return merged


def _intersection(left: list[Piece], right: list[Piece]) -> list[Piece]:
    common = []
    for one in left:
        for other in right:
            low, high = _compare(one.low, other.low), _compare(one.high, other.high)
            piece = Piece(
                one.low if low >= 0 else other.low,
                one.high if high <= 0 else other.high,
                one.low_open if low > 0 else other.low_open if low < 0 else one.low_open or other.low_open,
                one.high_open if high < 0 else other.high_open if high > 0 else one.high_open or other.high_open,
            )
            length = _compare(piece.low, piece.high)
            if length < 0 or (length == 0 and not piece.low_open and not piece.high_open):
                common.append(piece)
    return common


def _complement(pieces: list[Piece]) -> list[Piece]:
    rest = _real_line()
    for piece in pieces:
        low, high = _real_line()[0].low, _real_line()[0].high
        outside = [Piece(low, piece.low, True, not piece.low_open), Piece(piece.high, high, not piece.high_open, True)]
        rest = _intersection(rest, [part for part in outside if _compare(part.low, part.high) < 0])
    return rest
