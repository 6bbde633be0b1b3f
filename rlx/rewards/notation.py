r"""One spelling for LaTeX that means the same: ``\dfrac``, ``\varnothing``, ``1.6e5``, full-width digits and others."""

from __future__ import annotations

import re
from math import gcd

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SYMBOLS: dict[str, str | int] = {
    **dict.fromkeys("−–—﹣", "-"),
    **dict.fromkeys("\u00a0\u2009\u202f\u3000", " "),
    **dict.fromkeys("×⋅·∙", r"\cdot "),
    "÷": "/",
    "。": ".",
    "、": ",",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "∞": r"\infty ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∅": r"\emptyset ",
    "∈": r"\in ",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "′": "'",
    "π": r"\pi ",
    "α": r"\alpha ",
    "β": r"\beta ",
    "θ": r"\theta ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "²": "^{2}",
    "³": "^{3}",
    "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "€": "",
    "£": "",
    "…": r"\ldots ",
}
_UNICODE: dict[int, str | int] = {**_FULL_WIDTH, **str.maketrans(_SYMBOLS)}
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"√\s*(\d+|[a-zA-Z])", r"\\sqrt{\1}"),
        (r"√\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|big[lr]?|Big[lr]?|bigg[lr]?|Bigg[lr]?)(?![a-zA-Z])", ""),
        (r"\\(?:left|right)\s*\.", ""),
        (r"\\(?:left|right|middle)(?![a-zA-Z])", ""),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"(?<=\d)(?:\\[,!; ]|\{,\}|,\\!|\{\\,\})+(?=\d{3}(?!\d))", ""),
        (r"(?<![\d.])(\d{1,3})((?:[ ~]\d{3})+)(?![\d.])", lambda match: match[0].replace(" ", "").replace("~", "")),
        (r"\\[,;:!> ]|~|\\q?quad(?![a-zA-Z])", " "),
        (r"\{\}\s*\^", "^"),
        (r"\\(?:[dtc]frac)(?![a-zA-Z])", r"\\frac"),
        (r"\\[dt]binom(?![a-zA-Z])", r"\\binom"),
        (r"\\(?:mathrm|text|textrm|operatorname|mathit)\s*\{\s*([eidC])\s*\}", r"\1"),
        (r"\\(?:mathbf|boldsymbol|bm|mathit|mathsf|bf|pmb)\s*\{([^{}]*)\}", r"{\1}"),
        (r"\\operatorname\*?\s*\{\s*([a-z]+)\s*\}", r"\\\1 "),
        (r"\\(?:varnothing|empty)(?![a-zA-Z])", r"\\emptyset"),
        (r"\\(?:leqslant|leq|leqq)(?![a-zA-Z])|(?<![<=])<=(?!=)|\\not\s*>|\\ngtr(?![a-zA-Z])", r"\\le "),
        (r"\\(?:geqslant|geq|geqq)(?![a-zA-Z])|(?<![>=])>=|\\not\s*<|\\nless(?![a-zA-Z])", r"\\ge "),
        (r"\\neq(?![a-zA-Z])|!=|\\not\s*=|\\not\s*\\equiv(?![a-zA-Z])", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\(?:colon|mathbin\{:\}|mathpunct\{:\}|vcentcolon)(?![a-zA-Z])", ":"),
        (r":=", "="),
        (r"\\(?:dots|dotsc|cdots|dotsb|hdots)(?![a-zA-Z])|(?<!\.)\.\.\.(?!\.)", r"\\ldots "),
        (r"\^\s*(?:\{\s*(?:\\circ|\\degree)\s*\}|\\circ(?![a-zA-Z])|\\degree(?![a-zA-Z]))", r"^\\circ "),
        (r"\\(?:degree|textdegree)(?![a-zA-Z])", r"^\\circ "),
        (r"\\%", "%"),
        (r"\\(?:\$|pounds|euro)|\\text\{\s*\\?\$\s*\}", ""),
        (r"(?<![\\a-zA-Z])(sqrt|frac|dfrac|tfrac|binom)(?=\s*\{)", r"\\\1"),
        (r"(\d+|(?<![a-zA-Z\\])[a-zA-Z])!(?=\s*\^)", r"(\1!)"),
        (r"[(\[]\s*\\begin\{array\}\s*(?:\{[lcr| ]*\})?", r"\\begin{pmatrix}"),
        (r"\\end\{array\}\s*[)\]]", r"\\end{pmatrix}"),
    )
]
_EXPONENT_NUMBER = re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([+-]?)0*(\d{1,4})(?![\w.])")
_DECIMAL_COMMA = re.compile(r"[+-]?(?![1-9]\d{0,2},\d{3}$)\d+,\d+")
_LETTER_E = re.compile(r"(?<![a-zA-Z\\])e(?![a-zA-Z])|\\exp(?![a-zA-Z])|\\ln(?![a-zA-Z])")
_OVERLINED = re.compile(
    r"(\d*)\.(\d*)\\(?:overline|bar|dot|widehat|hat)\s*(?:\{\s*(\d+)\s*\}|(\d))(?:(\d*)\\dot\s*\{(\d)\})?"
)
_BRACKETED = re.compile(r"(?<![\w.])(\d*)\.(\d*)\((\d+)\)(?!\s*[\w(\\^])")
_CONTINUED = re.compile(r"(?<![\w.])(\d*)\.(\d+)\s*\\ldots")
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mbox|hbox|rm|operatorname)\s*\{([^{}]*)\}"
)
WORD = "\ue000"
"""Separates words that were written as text (``\\text{cm}``) from letters that are variables."""


def plain_latex(answer: str) -> str:
    r"""An answer in one spelling; words inside ``\text{}`` and its like stand between two ``WORD`` characters.

    Example:
        ``plain_latex(r"\dfrac{1}{2}\,\varnothing") == r"\frac{1}{2} \emptyset"``
    """
    if not answer.isascii():
        answer = answer.translate(_UNICODE)
    if _SIMPLE.fullmatch(answer):
        return answer.strip()
    if "\\begin" not in answer:
        answer = re.sub(r"\\\\(?=[a-zA-Z{}])", r"\\", answer)
    for pattern, replacement in _REWRITES:
        answer = pattern.sub(replacement, answer)
    answer = _OVERLINED.sub(_repeating, answer)
    answer = _BRACKETED.sub(lambda match: _fraction(*match.groups()), answer)
    answer = _CONTINUED.sub(_continued, answer)
    previous = None
    while previous != answer:
        previous, answer = answer, _TEXT.sub(lambda match: f"{WORD}{match[1]}{WORD}", answer)
    return answer.strip()


_SIMPLE = re.compile(r"[0-9a-zA-Z+\-*/^(),]*")


def numbers_read(gold: str, answer: str) -> tuple[str, str]:
    r"""Both answers with numbers such as ``1.6e5`` as powers of ten, and ``1,22`` as 1.22 if the other is a decimal.

    ``2e-1`` may mean 2e - 1, and does if the other answer contains e.
    """
    without = [_EXPONENT_NUMBER.sub("", side) for side in (gold, answer)]
    if not any(_LETTER_E.search(side) for side in without):
        gold, answer = (_EXPONENT_NUMBER.sub(_power_of_ten, side) for side in (gold, answer))
    for side, other in ((gold, answer), (answer, gold)):  # 1,22 is 1.22 in many languages, and a list in others
        if _DECIMAL_COMMA.fullmatch(side.strip()) and re.fullmatch(r"[+-]?\d*\.\d+", other.strip()):
            return (side.replace(",", "."), other) if side is gold else (other, side.replace(",", "."))
    return gold, answer


def _power_of_ten(match: re.Match[str]) -> str:
    return rf"{match[1]} \cdot 10^{{{'-' if match[2] == '-' else ''}{match[3]}}}"


def _repeating(match: re.Match[str]) -> str:
    before, fixed, block, digit, middle, last = match.groups()
    return _fraction(before, fixed, (block or digit) + (middle or "") + (last or ""))


def _fraction(before: str, fixed: str, block: str) -> str:
    """The fraction whose decimals are ``before.fixed`` followed by ``block`` for ever."""
    scale = 10 ** len(fixed)
    under = (10 ** len(block) - 1) * scale
    over = int((before or "") + fixed or "0") * (10 ** len(block) - 1) + int(block)
    common = gcd(over, under)
    return rf"\frac{{{over // common}}}{{{under // common}}}"


def _continued(match: re.Match[str]) -> str:
    """``0.1666...`` as a fraction, if its decimals end with a block that is written at least twice."""
    before, decimals = match.groups()
    for length in range(1, len(decimals) // 2 + 1):
        block, times = decimals[-length:], 3 if length == 1 else 2
        if decimals.endswith(block * times):
            fixed = decimals
            while fixed.endswith(block):
                fixed = fixed[:-length]
            return _fraction(before, fixed, block)
    return match[0]
