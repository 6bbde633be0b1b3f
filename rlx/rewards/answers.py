r"""Reading an answer into its kind: a value, a tuple or interval, a set or list, a union, a relation, words."""

from __future__ import annotations

import re
from fractions import Fraction

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
from rlx.rewards.notation import WORD
from rlx.rewards.prose import AND, OR, without_marks, words_and_rest
from rlx.rewards.units import meaningful, unit

DEPTH = 20
"""Nested brackets deeper than this are compared as a whole."""
_TOKEN = re.compile(rf"\\(?:begin|end)\s*\{{[a-zA-Z*]+\}}|\\[a-zA-Z]+|\\.|{WORD}[^{WORD}]*{WORD}|.", re.DOTALL)
_OPENING = frozenset(["(", "[", "{", "\\{", "\\langle", "\\lfloor", "\\lceil"])
_CLOSING = frozenset([")", "]", "}", "\\}", "\\rangle", "\\rfloor", "\\rceil"])
_WITH_THOUSANDS = re.compile(
    rf"(?:[^,=]*=)?\s*[+-]?\s*\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?\s*(?:{WORD}[^{WORD}]*{WORD}.*|%|\^\\circ)?"
)
_OPERATORS = {
    "=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\equiv": "mod", "\\in": "in",
    "\\approx": "~", "\\simeq": "~", "\\sim": "~",
}  # fmt: skip
_SIGNS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_TRIGONOMETRIC = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?|\\[a-z]+|[a-z])\s*\^\\circ(?![a-zA-Z])")
MODULUS = re.compile(
    r"(?P<value>.*?)\s*(?:\\pmod|\\mod|\\bmod|\(\s*\\?mod)\s*\{?\s*(?P<modulus>[^{}()]+?)\s*[})]*\s*", re.DOTALL
)
_DIGITS = 40
_PI = Fraction(31415926535897932384626433832795028841971693993751, 10**49)
_RATIO_PART = re.compile(r"[\d.]+|[a-z]|\d*\\sqrt\{?\d+\}?|\\ldots")
_QUALIFIER = re.compile(r"\s*[a-zA-Z]\s*\\in\s*\\mathbb\s*\{?\s*[ZNQRC]\s*\}?(?:\^?\{?[+*]\}?)?\s*")


def read_answer(latex: str, depth: int = 0) -> Answer:
    """The kind and the parts of an answer from ``marked_words``.

    Args:
        latex: the answer.
        depth: number of brackets around it.
    """
    latex = _unwrapped(latex.strip(" ;,$\n").rstrip(" .;,$\n"))
    if depth > DEPTH:
        return Value(latex)
    if "," in latex and _WITH_THOUSANDS.fullmatch(latex):
        latex = latex.replace(",", "")
    for separators in (frozenset([OR]), frozenset([";"]), frozenset([AND]), frozenset([","])):
        parts = [part for part in split(latex, separators)[0] if part.strip(" ,")]
        if len(parts) > 1:
            return _joined([read_answer(part, depth + 1) for part in _without_qualifiers(parts)], OR in separators)
    if _SIGNS.search(latex):
        return Unordered(tuple(read_answer(_signed(latex, sign), depth + 1) for sign in "+-"))
    sets = split(latex, frozenset(["\\cup"]))[0]
    if len(sets) > 1:
        return Union(tuple(read_answer(part, depth + 1) for part in sets))
    difference = split(latex, frozenset(["\\setminus", "\\backslash"]))[0]
    if len(difference) == 2:
        base, removed = (read_answer(part, depth + 1) for part in difference)
        return Without(base, removed)
    return _bracketed(latex, depth) or _related(latex) or _single(latex)


def split(latex: str, separators: frozenset[str] | dict[str, str]) -> tuple[list[str], list[str]]:
    """The parts between separators outside of all brackets, and the separators."""
    if not any(separator in latex for separator in separators):
        return [latex], []
    parts, between, depth, start = [], [], 0, 0
    for match in _TOKEN.finditer(latex):
        token = match[0]
        if token in _OPENING or token.startswith("\\begin"):
            depth += 1
        elif token in _CLOSING or token.startswith("\\end"):
            depth -= 1
        elif depth == 0 and token in separators:
            parts.append(latex[start : match.start()])
            between.append(token)
            start = match.end()
    return [*parts, latex[start:]], between


def _joined(items: list[Answer], alternatives: bool) -> Answer:
    """Parts joined by ``or``, ``and`` or commas as one answer; lists inside of lists become one list."""
    if len(items) == 1:
        return items[0]
    if all(_is_condition(item) for item in items) or (alternatives and all(map(_is_set, items))):
        return Union(tuple(items), both=not alternatives)
    names = [_names(item) for item in items]
    if sum(map(len, names)) > len(set().union(*names)) and max(map(len, names)) > 1:
        return Unordered(tuple(items))  # x=1, y=2 or x=3, y=4
    flat: list[Answer] = []
    for item in items:
        flat += item.items if isinstance(item, Unordered) and not item.braces else [item]
    return Unordered(tuple(flat))


def _is_condition(item: Answer) -> bool:
    return isinstance(item, Union) or (
        isinstance(item, Relation) and not item.is_equation and "mod" not in item.operators
    )


def _is_set(item: Answer) -> bool:
    interval = isinstance(item, Ordered) and len(item.items) == 2 and "[" + item.opening + item.closing != "[()"
    return interval or _is_condition(item)


def _names(item: Answer) -> set[str]:
    """The left-hand sides of the equations in a list."""
    if not isinstance(item, Unordered):
        return set()
    return {part.sides[0] for part in item.items if isinstance(part, Relation) and part.is_equation}


def _without_qualifiers(parts: list[str]) -> list[str]:
    r"""The parts of a list without a domain such as ``k \in \mathbb{Z}``, unless nothing else is there."""
    return [part for part in parts if not _QUALIFIER.fullmatch(part)] or parts


def _unwrapped(latex: str) -> str:
    """An answer without the braces around it that only group, and that nobody sees; ``{}`` is the empty set."""
    while latex.startswith("{") and latex.endswith("}") and _closes_at_end(latex):
        if not latex[1:-1].strip():
            return "\\emptyset"
        latex = latex[1:-1].strip()
    return latex


def _closes_at_end(latex: str) -> bool:
    """Return whether the bracket that opens an answer is closed by its last token."""
    depth = 0
    for match in _TOKEN.finditer(latex):
        if match[0] in _OPENING:
            depth += 1
        elif match[0] in _CLOSING:
            depth -= 1
            if depth == 0:
                return match.end() == len(latex)
    return False


def _bracketed(latex: str, depth: int) -> Answer | None:
    """The answer inside brackets that enclose all of it; None without such brackets."""
    opening = next((token for token in ("(", "[", "\\{", "\\langle") if latex.startswith(token)), None)
    closing = next((token for token in (")", "]", "\\}", "\\rangle") if latex.endswith(token)), None)
    if opening is None or closing is None or not _closes_at_end(latex):
        return None
    inside = latex[len(opening) : len(latex) - len(closing)].strip()
    if opening == "\\{":
        if not inside:
            return Unordered((), braces=True)
        condition = re.match(r"\s*[a-zA-Z](?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\\mid|\||:)(.*)", inside, re.DOTALL)
        if condition:
            return read_answer(condition[1], depth + 1)
        parts = split(inside, frozenset([",", ";"]))[0]
        return Unordered(tuple(read_answer(part, depth + 1) for part in parts), braces=True)
    parts = split(inside, frozenset([",", ";"]))[0]
    if len(parts) > 1:
        return Ordered(tuple(read_answer(part, depth + 1) for part in parts), opening, closing)
    return read_answer(inside, depth + 1) if opening == "(" and closing == ")" and inside else None


def _related(latex: str) -> Answer | None:
    """An equation, an inequality, a congruence, membership in a set, or a ratio; None for others."""
    sides, operators = split(latex, _OPERATORS)
    names = [_OPERATORS[operator] for operator in operators]
    if names and not sides[0].strip() and names[0] in "=~":
        return read_answer("=".join(sides[1:]))  # "= 5" or "\approx 5"
    if "~" in names:
        return _approximated(sides, operators, names.index("~"))
    if names == ["in"]:
        return read_answer(sides[1])
    if names and "in" not in names and all(side.strip() for side in sides):
        return Relation(tuple(side.strip() for side in sides), tuple(names))
    if not names and MODULUS.fullmatch(latex):
        return Relation(("x", latex), ("mod",))
    words, _, rest = words_and_rest(latex)
    parts = [part.strip() for part in split(rest, frozenset([":"]))[0]]
    if len(parts) > 1 and not meaningful(words) and all(map(_RATIO_PART.fullmatch, parts)):
        half = re.search(r"\b([ap])\.?\s?m\b", words.lower())
        return Ratio(tuple(parts), half[1] if half else "")
    return None


def _approximated(sides: list[str], operators: list[str], first: int) -> Answer:
    r"""``x = \sqrt{2} \approx 1.41``; an answer without anything in front of its decimals is their equation."""
    before = "".join(side + operator for side, operator in zip(sides, [*operators[:first], ""], strict=False))
    decimals = read_answer(sides[-1])
    if first == 0 and re.fullmatch(r"\s*\\?[a-zA-Z]+(?:_\S+)?\s*", sides[0]):
        return Relation((sides[0].strip(), sides[-1].strip()), ("=",))
    return Approximated(read_answer(before), decimals)


def _single(latex: str) -> Answer:
    """One value with its percent sign, degrees or unit; or words."""
    words, power, rest = words_and_rest(latex)
    if words and (not rest or meaningful(words)):
        return Words(without_marks(latex))
    if rest == "\\emptyset":
        return Unordered((), braces=True)
    if _TRIGONOMETRIC.search(rest) or rest.count("\\circ") > 1:
        return Value(_DEGREES.sub(_radians, rest), unit=unit(words, power))
    degrees = re.search(r"\^\\circ\s*(?:[CFK])?\s*$", rest)
    if degrees:
        return Value(rest[: degrees.start()].strip(), sign="deg")
    if rest.endswith("%"):
        return Value(rest[:-1].strip(), sign="%")
    return Value(rest, unit=unit(words, power))


def _radians(match: re.Match[str]) -> str:
    """An angle in radians: as digits, which are read faster than a multiple of pi."""
    if not match[1][0].isdigit():
        return rf"(\frac{{{match[1]} \cdot \pi}}{{180}})"
    digits = int(Fraction(match[1]) * _PI / 180 * 10**_DIGITS)
    return f"{{{digits // 10**_DIGITS}.{digits % 10**_DIGITS:0{_DIGITS}d}}}"


def _signed(latex: str, sign: str) -> str:
    opposite = {"+": "-", "-": "+"}
    return _SIGNS.sub(lambda match: sign if match[1] == "pm" else opposite[sign], latex)
