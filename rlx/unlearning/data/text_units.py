"""A text as units that a span never cuts: words, numbers, addresses of e-mail, titles in quotes, Chinese terms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rlx.unlearning.data.span_words import (
    CJK_ATTRIBUTE_WORDS,
    CJK_FUNCTION_CHARACTERS,
    CJK_PLACE_SUFFIXES,
    CJK_RELATION_WORDS,
)

UnitKind = Literal["word", "number", "link", "quoted", "cjk", "cjk_known", "cjk_attribute", "cjk_relation"]
CJK = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3005\u30fc"
HANGUL = "\uac00-\ud7a3\u1100-\u11ff\u3130-\u318f"
MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u0900-\u0963\u0966-\u0dff\u0e00-\u0eff\u1000-\u109f"
)
"""Signs within words that Python does not count as letters."""
LETTER = rf"(?:(?![{CJK}{HANGUL}])[^\W_]|[{MARKS}])"
LINK = (
    r"[A-Za-z0-9À-ÿ._%+-]+@[A-Za-z0-9À-ÿ-]+(?:\.[A-Za-z0-9À-ÿ-]+)+|(?:https?://|www\.)[^\s<>\"«»“”]*[\w/]|(?<!\w)@\w+"
)
QUOTED = (
    '“[^”“]{1,80}”|"[^"\n]{1,80}"|«[^»]{1,80}»|„[^“”„]{1,80}[“”]|《[^》]{1,80}》|「[^」]{1,80}」'
    r"|(?<!\w)['‘](?=\w)(?:[^'‘’\n]|(?<=\w)['’](?=\w)){2,80}['’](?!\w)"
)
ELISION = r"\b(?:[ldnmtscjLDNMTSCJ]|[Qq]u|[Jj]usqu|[Dd]ell|[Nn]ell|[Aa]ll|[Dd]all|[Ss]ull|[Uu]n)['’](?=[^\W\d_])"
UNIT = re.compile(
    rf"(?P<link>{LINK})|(?P<quoted>{QUOTED})|(?P<elision>{ELISION})|(?P<cjk>[{CJK}]+)|(?P<hangul>[{HANGUL}]+)"
    rf"|(?P<word>{LETTER}+(?:[-‐'’_]{LETTER}+)*)"
)
NUMBER_GAP = re.compile(r"[ \u00a0\u202f.,:/\-–'’]|\)[ \u00a0]?-?|[ \u00a0]?\(|[ \u00a0][-–/][ \u00a0]")
"""Text between two groups of digits of one number: 06 12 34, +49 (0)30 12, 1,200.50, 4/7/1985."""
SIGNS_BEFORE = re.compile(r"(?:[+#(]|[$€£¥₹₩₽₺]\s?|(?<!\w)-)+$")
SIGNS_AFTER = re.compile(r"\s?[$€£¥₹₩₽₺%‰°]")


LETTERS = re.compile(rf"{LETTER}{{2}}|[{HANGUL}]{{2}}")


def one_word(text: str, index: int) -> bool:
    """Whether the characters before and at an index belong to one word; Chinese and Japanese have no such words."""
    return LETTERS.fullmatch(text, index - 1, index + 1) is not None


@dataclass(frozen=True, slots=True)
class Unit:
    """Characters ``start`` to ``end`` (exclusive) of a text that belong together.

    Example:
        ``Unit(26, 34, "number")``
    """

    start: int
    end: int
    kind: UnitKind


def units(text: str, question: str) -> list[Unit]:
    """The units of an answer, in order.

    Args:
        text: the answer.
        question: Chinese and Japanese, which have no spaces, are divided into what the question holds and the rest.
    """
    result: list[Unit] = []
    for unit in _units(text, question):
        previous = result[-1] if result else None
        if (
            previous
            and previous.kind == unit.kind == "number"
            and NUMBER_GAP.fullmatch(text[previous.end : unit.start])
        ):
            result[-1] = Unit(previous.start, unit.end, "number")
        else:
            result.append(unit)
    return [_with_signs(text, unit) if unit.kind == "number" else unit for unit in result]


def _units(text: str, question: str) -> Iterator[Unit]:
    for match in UNIT.finditer(text):
        start, end = match.span()
        if match.lastgroup == "cjk":
            yield from _cjk_units(text, start, end, question)
        elif match.lastgroup == "quoted":
            inner = match[0][1:-1].rstrip(" ,.;")
            yield Unit(start + 1, start + 1 + len(inner), "quoted")
        elif match.lastgroup == "link":
            yield Unit(start, end, "link")
        else:
            yield Unit(start, end, "number" if any(letter.isdigit() for letter in match[0]) else "word")


def _with_signs(text: str, unit: Unit) -> Unit:
    """A number with its currency, country code or percent sign."""
    before, after = SIGNS_BEFORE.search(text[: unit.start]), SIGNS_AFTER.match(text, unit.end)
    start, end = before.start() if before else unit.start, after.end() if after else unit.end
    if text[start] == "(" and ")" not in text[start:end]:
        start += 1
    return Unit(start, end, "number")


def _cjk_units(text: str, start: int, end: int, question: str) -> list[Unit]:
    """What the question and the attribute words explain, and the terms between them."""
    pieces: list[Unit] = []
    index = start
    while index < end:
        length = _known_length(text, index, end, question)
        after_term = bool(pieces) and pieces[-1].kind == "cjk" and pieces[-1].end == index
        if not length and _is_function(text[index]) and not (after_term and _inside_term(text, index, end, question)):
            length = 1
        if length:
            pieces.append(Unit(index, index + length, _known_kind(text[index : index + length], question)))
        elif after_term:
            pieces[-1] = Unit(pieces[-1].start, index + 1, "cjk")
        else:
            pieces.append(Unit(index, index + 1, "cjk"))
        index += length or 1
    return _complete_terms(text, pieces)


def _known_length(text: str, index: int, end: int, question: str) -> int:
    """Length of the longest piece at ``index`` that is an attribute word or at least two characters of the question."""
    length = next((len(word) for word in CJK_ATTRIBUTE_WORDS if text.startswith(word, index, end)), 0)
    while index + max(length, 1) < end and text[index : index + max(length, 1) + 1] in question:
        length = max(length, 1) + 1
    return length


def _known_kind(piece: str, question: str) -> UnitKind:
    if piece in question or len(piece) == 1 and piece in CJK_FUNCTION_CHARACTERS:
        return "cjk_known"
    return "cjk_relation" if piece in CJK_RELATION_WORDS else "cjk_attribute"


def _is_function(letter: str) -> bool:
    return letter in CJK_FUNCTION_CHARACTERS or "\u3040" <= letter <= "\u309f"


def _inside_term(text: str, index: int, end: int, question: str) -> bool:
    """Whether a function character is followed by more of the term before it."""
    following = index + 1
    return following < end and not _is_function(text[following]) and not _known_length(text, following, end, question)


def _complete_terms(text: str, pieces: list[Unit]) -> list[Unit]:
    """Pieces in which no term is cut: its first characters may be in the question too (a city, a surname)."""
    result: list[Unit] = []
    for piece in pieces:
        before = result[-1] if result else None
        if before and before.end == piece.start and _continues_term(text, before, piece, len(result) > 1):
            result[-1] = Unit(before.start, piece.end, "cjk")
        else:
            result.append(piece)
    return result


def _continues_term(text: str, before: Unit, piece: Unit, inside: bool) -> bool:
    """Whether a new piece belongs to the known one before it.

    Args:
        text: the answer.
        before: the known piece.
        piece: the new one.
        inside: whether other pieces precede both; the first piece is the subject that the question holds.
    """
    piece_text = text[before.start : before.end]
    if piece.kind != "cjk" or before.kind != "cjk_known" or any(_is_function(letter) for letter in piece_text):
        return False
    if piece_text in CJK_ATTRIBUTE_WORDS or piece_text in CJK_RELATION_WORDS:
        return False
    return inside or text[piece.start] in CJK_PLACE_SUFFIXES
