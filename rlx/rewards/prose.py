r"""Words in an answer: marking them apart from variables, and leaving out those around a value."""

from __future__ import annotations

import re
from fractions import Fraction

from rlx.rewards.notation import WORD
from rlx.rewards.units import doubtful, known_unit, number_word

AND, OR = "\ue001", "\ue002"
"""Stand for the words ``and`` and ``or`` between parts of an answer."""
_FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "ln",
        "exp",
        "max",
        "min",
        "gcd",
        "lcm",
        "det",
        "lim",
        "deg",
        "mod",
        "arg",
        "dim",
    ]
)
_CAPITALS = frozenset(["YES", "NO", "TRUE", "FALSE", "NONE", "DNE"])
_SHORT = frozenset(["is", "an", "of", "in", "to", "so", "by", "at", "we", "be", "as", "on", "it", "no", "if"])
_MARKED = re.compile(f"{WORD}([^{WORD}]*){WORD}")
_BARE = re.compile(r"(?<![\\a-zA-Z_^{])[A-Za-z]{2,}(?![a-zA-Z_^({])")
_PLAIN_WORDS = re.compile(r"\s*[A-Za-z][A-Za-z .,'/\-]*(?:\^?\{?[23]\}?)?\s*")
_CHOICE = re.compile(r"\s*\(?[A-Z]\s*[).]\s*|\s*\([A-Z]\s*\)?\s*")
_BETWEEN = re.compile(r"(?<![\\a-zA-Z])(and|or)(?![a-zA-Z])|\\(?:(lor|vee)|land|wedge)(?![a-zA-Z])", re.IGNORECASE)
_FINAL = re.compile(r"[Ff]inal answer is:?\s*(?:\$|\\\()?([^$]*?)(?:\$|\\\))?\s*\.\s*I hope it is correct")
_SPAN = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_IS = re.compile(rf"^(?P<words>[^0-9=<>]*)\b(?:is|are|equals|be)\s*{WORD}(?=\s*[^\s.])", re.DOTALL)
_NUMBER_WORD = re.compile(rf"(\d[\d,]*(?:\.\d+)?)\s*{WORD}\s*([a-zA-Z]+[^{WORD}]*){WORD}")
_PLAIN_NAMES = re.compile(r"(?<![\\a-zA-Z])(pi|infty|theta|sin|cos|tan|ln|log|exp)(?![a-zA-Z])")
_PLAIN_ROOT = re.compile(r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)")


def marked_words(latex: str) -> str:
    r"""LaTeX from ``plain_latex`` with every word marked, ``and`` and ``or`` as separators, and no prose around it.

    Example:
        ``marked_words("x<2 or x>3") == f"x<2 {OR} x>3"``
    """
    latex = _math_of(latex)
    if not re.search(rf"[a-zA-Z{{]{{2}}|[{WORD}$]", latex) and "\\" not in latex:
        return latex
    latex = _PLAIN_ROOT.sub(r"\\sqrt{\1}", latex)
    latex = _PLAIN_NAMES.sub(r"\\\1 ", latex)
    pieces = latex.split(WORD)
    inside = [
        _inside(piece, pieces[number - 1]) if number % 2 else _outside(piece) for number, piece in enumerate(pieces)
    ]
    latex = re.sub(rf"{WORD}\s*(\b[aAI]\b)?\s*{WORD}", r" \1 ", "".join(inside))
    latex = re.sub(rf"{WORD}\s*(?:degrees?|deg)\s*{WORD}", r"^\\circ ", latex)
    latex = re.sub(rf"{WORD}\s*(?:percent|percentage|pct|per cent)\s*{WORD}", "%", latex)
    latex = re.sub(rf"(?<=\d)\s*{WORD}\s*to\s*{WORD}\s*(?=\d)", ":", latex)
    latex = _NUMBER_WORD.sub(_multiplied, latex)
    return _without_introduction(latex).strip()


def words_and_rest(latex: str) -> tuple[str, str, str]:
    """The words of an answer, the power behind the last of them, and the answer without both."""
    words = " ".join(_MARKED.findall(latex))
    power = re.search(rf"{WORD}\s*\^\s*\{{?\s*([23])\s*\}}?", latex) or re.search(r"\^\{?([23])\}?\s*$", words)
    rest = re.sub(rf"{WORD}[^{WORD}]*{WORD}\s*(?:\^\s*(?:\{{\s*[23]\s*\}}|[23]))?", " ", latex)
    return re.sub(r"\s+", " ", words).strip(), power[1] if power else "", rest.strip(" ,:;").rstrip(" .,:;")


def without_marks(latex: str) -> str:
    """The answer with its words as plain text."""
    return latex.replace(WORD, " ").replace(AND, " and ").replace(OR, " or ").strip()


def _multiplied(match: re.Match[str]) -> str:
    """``5 million`` as 5000000."""
    value, words = Fraction(match[1].replace(",", "")), match[2].split()
    exponent = number_word(words[0])
    if exponent is None or (value * 10**exponent).denominator != 1:
        return match[0]
    rest = " ".join(words[1:])
    return f"{value * 10**exponent}" + (f" {WORD}{rest}{WORD}" if rest else "")


def _math_of(latex: str) -> str:
    """The formula in a sentence that has one between dollar signs; other answers without their dollar signs."""
    final = _FINAL.search(latex)
    if final:
        return final[1]
    spans = list(_SPAN.finditer(latex))
    outside = _SPAN.sub(" ", latex).replace(WORD, " ")
    if len(spans) == 1 and re.search(r"[a-zA-Z]{2,}", outside) and "\\" not in outside and not doubtful(outside):
        words = re.sub(r"[^a-zA-Z]+", "", latex[spans[0].end() :])
        if not re.search(r"\d", outside) and (not words or outside.rstrip(". ").endswith((" solution", " answer"))):
            return next(group for group in spans[0].groups() if group)
    return re.sub(r"\$|\\[()\[\]](?![a-zA-Z])", " ", latex) if spans or "$" in latex else latex


def _inside(piece: str, before: str = "") -> str:
    """The content of a text command: words stay marked, formulas and single letters don't."""
    if _CHOICE.fullmatch(piece):
        return piece
    if _BETWEEN.search(piece):
        return "".join(
            part if part in (AND, OR) else _inside(part)
            for part in re.split(f"([{AND}{OR}])", _separated(piece))
            if part.strip()
        )
    unit_letter = known_unit(piece.strip()) and re.search(r"[\d})]\s*$", before)
    if not unit_letter and (len(piece.strip()) < 2 or not _PLAIN_WORDS.fullmatch(piece)):
        return _outside(piece)
    return f" {WORD}{piece}{WORD}"


def _separated(piece: str) -> str:
    return _BETWEEN.sub(lambda match: OR if match[2] or (match[1] or "").lower() == "or" else AND, piece)


def _outside(piece: str) -> str:
    """A formula with its bare words marked."""
    piece = _separated(piece)

    def with_marks(match: re.Match[str]) -> str:
        word, before, after = match[0], piece[: match.start()], piece[match.end() :]
        separate = (not before or before[-1] in f" \n,.;:()/{AND}{OR}") and (
            not after or after[0] in f" \n,.;:()!?'/{AND}{OR}"
        )
        if word in _FUNCTIONS or (word.isupper() and len(word) < 6 and word not in _CAPITALS):
            return word  # ABC may be a triangle
        if known_unit(word) and re.search(r"[\d})]\s*$", before):
            return f" {WORD}{word}{WORD}"
        return f"{WORD}{word}{WORD}" if separate and (len(word) > 2 or word.lower() in _SHORT) else word

    return _BARE.sub(with_marks, piece)


def _without_introduction(latex: str) -> str:
    """The answer without ``The answer is`` or ``Answer:`` in front of it."""
    colon = re.match(rf"\s*{WORD}([^{WORD}]*){WORD}\s*:\s*(?=\S)", latex)
    if colon and not doubtful(colon[1]):
        latex = latex[colon.end() :]
    verb = _IS.match(latex)
    if verb and not doubtful(verb["words"]):
        return latex[verb.end() :]
    inner = re.match(rf"\s*{WORD}([^{WORD}]*)\b(?:is|are)\s+([^{WORD}]*){WORD}\s*\.?\s*$", latex)
    if inner and not doubtful(inner[1]):
        return f"{WORD}{inner[2]}{WORD}"
    return latex
