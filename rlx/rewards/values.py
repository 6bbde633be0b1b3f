r"""Equality of numbers and expressions: exact for numbers that are exact, by values at sample points for expressions.

math-verify's LaTeX grammar reads what a model wrote: its other reader hands text to Python's ``eval``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rlx.rewards.notation import WORD

RELATIVE = 1e-6
"""A decimal equals a number that no decimal can write, such as 1/3 or a root, up to this relative difference."""
EXACT = 1e-12
"""Relative difference up to which two values that are computed with 30 digits count as equal."""
DIGITS = 30
POINTS = 6
"""Sample points of each kind at which two expressions are compared."""
_DECIMAL = re.compile(r"(?<![\d.])\d*\.\d{1,25}(?!\d)")  # more digits are those of an angle in degrees
_ZERO_FRACTION = re.compile(r"(?<![\d.])(\d+)\.0+(?![\d.])")
_SIGNED = r"\s*([+-]?)\s*"
_PLAIN = re.compile(_SIGNED + r"(\d{1,60}(?:\.\d{0,60})?|\.\d{1,60})\s*")
_RATIO = re.compile(
    _SIGNED + r"(?:(\d{1,30})\s*)?(?:\\frac\s*(?:\{\s*([+-]?\d{1,30})\s*\}\s*\{\s*([+-]?\d{1,30})\s*\}|(\d)(\d))"
    r"|(?<![\d])(\d{1,30})\s*/\s*(\d{1,30}))\s*"
)
_MIXED = re.compile(_SIGNED + r"(\d{1,30})\s+(\d{1,30})\s*/\s*(\d{1,30})\s*")
_BARE_LOG = re.compile(r"\\log(?![a-zA-Z])(?!\s*_)")


def same_value(gold: str, answer: str) -> bool:
    r"""Return whether two numbers or expressions are equal; ``\log`` without a base may be that of 10 or of e."""
    if gold.split() == answer.split() or (len(gold) == 1 and gold.lower() == answer.lower()):
        return True
    left, right = rational(gold), rational(answer)
    if left is not None and right is not None:
        return left == right or (
            ("." in gold) != ("." in answer) and _approximates(left, right, answer if "." in gold else gold)
        )
    if _same_expression(gold, answer):
        return True
    if not _BARE_LOG.search(gold + answer):
        return False
    return _same_expression(*(_BARE_LOG.sub(r"\\ln ", side) for side in (gold, answer)))


def rational(latex: str) -> Fraction | None:
    r"""The value of an integer, a decimal, a fraction or a mixed number; None for anything else."""
    match = _PLAIN.fullmatch(latex)
    if match:
        value = Fraction(match[2] + ("0" if match[2].endswith(".") else ""))
        return -value if match[1] == "-" else value
    match = _MIXED.fullmatch(latex)
    if match:
        sign, integer, over, under = match.groups()
    else:
        match = _RATIO.fullmatch(latex)
        if not match:
            return None
        sign, integer, *parts = match.groups()
        over, under = [part for part in parts if part is not None]
        if integer is not None and "\\" not in latex:
            return None
    if not int(under):
        return None
    value = Fraction(int(integer or 0)) + Fraction(int(over), int(under))
    return -value if sign == "-" else value


def parsed(latex: str) -> Any:
    """The expression that math-verify reads, None if it reads none; ``i`` is the imaginary unit."""
    return _parsed(_ZERO_FRACTION.sub(r"\1", latex.replace(WORD, " ")))


def number(latex: str) -> Any:
    """The value of a number, also infinite, with ``DIGITS`` digits; None for anything else."""
    value = rational(latex)
    if value is not None:
        from sympy import Rational

        return Rational(value.numerator, value.denominator)
    expression = parsed(latex)
    return evaluated(expression) if is_number(expression) else None


def evaluated(expression: Any) -> Any:
    """The value of an expression without variables, also infinite, with ``DIGITS`` digits; None for no real number."""
    return expression if expression.is_infinite else _finite(expression.evalf(DIGITS))


def constant_ratio(gold: Any, answer: Any) -> Any:
    """The number c with gold = c * answer at all sample points; None if there is none."""
    ratios = []
    for left, right in _sampled(gold, answer):
        if _close(left, 0) or _close(right, 0):
            if _close(left, 0) != _close(right, 0):
                return None
            continue
        ratios.append(left / right)
    if not ratios or not all(_near(ratio, ratios[0], EXACT) for ratio in ratios):
        return None
    return ratios[0]


@lru_cache(maxsize=256)
def _parsed(latex: str) -> Any:
    from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
    from sympy import Basic, I, MatrixBase, Symbol, nan, zoo

    # Units were read before: math-verify's own list of them has letters that may be variables.
    spelling = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    try:
        expression = latex2sympy(normalize_latex(latex, spelling), is_real=True, normalization_config=None)
    except Exception:  # the grammar raises plain exceptions for what it does not read
        return None
    # 1/0 is undefined, and all undefined values are one object: only the text tells them apart.
    if not isinstance(expression, Basic | MatrixBase) or (isinstance(expression, Basic) and expression.has(zoo, nan)):
        return None
    # The same letter may have other assumptions in another answer, and then it would be another symbol.
    symbols = {
        symbol: I if symbol.name == "i" else Symbol(symbol.name, real=True)
        for symbol in expression.free_symbols
        if isinstance(symbol, Symbol)
    }
    return expression.subs(symbols) if any(old != new for old, new in symbols.items()) else expression


def _same_expression(gold: str, answer: str) -> bool:
    from sympy import Expr, MatrixBase

    left, right = parsed(gold), parsed(answer)
    if left is None or right is None:
        return False
    if left == right:
        return True
    if isinstance(left, MatrixBase) or isinstance(right, MatrixBase) or getattr(left, "is_Matrix", False):
        return _same_matrix(left, right)
    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return False
    left, right = _computed(left), _computed(right)
    decimals = [bool(_DECIMAL.search(_ZERO_FRACTION.sub("", side))) for side in (gold, answer)]
    tolerance = RELATIVE if decimals[0] != decimals[1] else EXACT
    if is_number(left) and is_number(right):
        return _same_number(left, right, tolerance)
    return _same_function(left, right, tolerance)


def _computed(expression: Any) -> Any:
    """An expression without limits, derivatives, integrals, sums and products over an index."""
    from sympy import Derivative, Integral, Limit, Product, Sum

    return expression.doit() if expression.has(Derivative, Integral, Limit, Product, Sum) else expression


def _same_matrix(left: Any, right: Any) -> bool:
    from sympy import Matrix

    try:
        left, right = (Matrix(side.doit()) for side in (left, right))
    except (TypeError, ValueError, AttributeError):
        return False
    if left.shape != right.shape:
        return False
    return all(
        one == other
        or (
            _same_number(one, other, RELATIVE)
            if is_number(one) and is_number(other)
            else _same_function(one, other, EXACT)
        )
        for one, other in zip(left, right, strict=True)
    )


def _same_number(left: Any, right: Any, tolerance: float) -> bool:
    """Equality of two numbers: approximately first, since exact values of huge powers take long."""
    from sympy import Float, Rational

    one, other = (_finite(side.evalf(DIGITS)) for side in (left, right))
    computed = one is not None and other is not None
    if computed and not _near(one, other, tolerance):
        return False
    exact = [side.doit() for side in (left, right)]
    if not computed or all(isinstance(side, Rational) for side in exact):
        return bool(exact[0] == exact[1])
    rationals = [side for side in exact if isinstance(side, Rational)]
    if any(side.has(Float) for side in exact) and rationals and _terminates(rationals[0].q):
        return _near(one, other, EXACT)
    return True


def _same_function(left: Any, right: Any, tolerance: float) -> bool:
    """Equality at all sample points where both are defined (real, unless one has the imaginary unit)."""
    compared = 0
    for one, other in _sampled(left, right):
        if not _near(one, other, tolerance):
            return False
        compared += 1
    if compared >= POINTS // 2:
        return True
    from sympy import simplify

    return bool(simplify(left - right) == 0)


def _sampled(left: Any, right: Any) -> Any:
    """Pairs of finite values of two expressions at the sample points."""
    from sympy import I, Rational

    imaginary = left.has(I) or right.has(I)
    symbols = sorted(left.free_symbols | right.free_symbols, key=lambda symbol: str(symbol.name))
    for kind in range(3):
        for point in range(POINTS):
            values = {}
            for number_, symbol in enumerate(symbols):
                step = (point + 1) * (2 * number_ + 3) % 23 + number_ + 2
                values[symbol] = (Rational(step, 7 + 2 * point), -Rational(step, 5 + 3 * point), Rational(step))[kind]
            one, other = (_finite(side.subs(values).evalf(DIGITS)) for side in (left, right))
            if one is None or other is None:
                continue
            if imaginary or (_is_real(one) and _is_real(other)):
                yield one, other


def is_number(expression: Any) -> bool:
    """Whether what was read is an expression without variables."""
    from sympy import Expr

    return isinstance(expression, Expr) and not expression.free_symbols


def _finite(value: Any) -> Any:
    """A numeric value, 0 where sympy found no digit that is not 0; None for one that is infinite or no number."""
    from sympy import Float, I, Integer

    if not value.is_number or not value.is_finite:
        return None
    parts = []
    for part in value.as_real_imag():
        if not (isinstance(part, Float) or part.is_Rational):
            return None
        parts.append(Integer(0) if isinstance(part, Float) and part._prec == 1 else part)
    return parts[0] + I * parts[1] if parts[1] else parts[0]


def _is_real(value: Any) -> bool:
    real, imaginary = value.as_real_imag()
    return bool(abs(imaginary) <= EXACT * max(1, abs(real)))


def _close(value: Any, other: Any) -> bool:
    return bool(abs(value - other) < 1e-20)


def _near(left: Any, right: Any, tolerance: float) -> bool:
    larger = max(abs(left), abs(right))
    return bool(larger == 0 or abs(left - right) <= tolerance * larger)


def _approximates(left: Fraction, right: Fraction, exact: str) -> bool:
    """Return whether a decimal is the rounded value of a fraction that no decimal can write."""
    value = rational(exact)
    if value is None or _terminates(value.denominator):
        return False
    return bool(abs(left - right) <= Fraction(RELATIVE) * max(abs(left), abs(right)))


def _terminates(number_under: Any) -> bool:
    """Return whether fractions with this denominator are finite decimals."""
    denominator = int(number_under)
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1
