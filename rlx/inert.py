"""Text of data, models and run folders in each output format, so that it is shown and never acted on."""

from __future__ import annotations

import re
import unicodedata

KEPT_CONTROLS = "\n\t"
LONGEST_FILE_NAME = 120
"""Characters; file systems allow 255 bytes, and callers add to the name."""
BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the order in which a line is displayed."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet computes."""
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\u00b1": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def visible(text: str) -> str:
    r"""The text with control characters as escapes, for a terminal: ``\x1b[2J`` instead of a cleared screen.

    Line ends and tabs stay. Characters that reverse the direction of a line are escaped too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) if _is_control(char) else char for char in text)


def _is_control(char: str) -> bool:
    control = unicodedata.category(char) in ("Cc", "Cs") and char not in KEPT_CONTROLS
    return control or char in BIDIRECTIONAL or char in "\u2028\u2029"


def _escaped(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"


def one_line(text: str) -> str:
    """The text as ``visible`` gives it, on one line."""
    return " ".join(visible(text).splitlines())


def markdown_text(text: str) -> str:
    """The text in Markdown without its own emphasis, code, HTML, links, images, formulas, table cells and headings."""
    text = re.sub(r"([\\`*|$~])", r"\\\1", one_line(text))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    text = re.sub(r"&(?=#?\w+;)(?!lt;)", "&amp;", text)
    text = re.sub(r"\](?=[(\[:])", r"]\\", text)
    return re.sub(r"^(\s*)([#>+=-]|\d+[.)])(?=\s)", r"\1\\\2", text)


def latex_text(text: str) -> str:
    """The text in LaTeX, without commands."""
    return "".join(LATEX_SPECIAL.get(char, char) for char in one_line(text))


def csv_cell(text: str) -> str:
    """The text as a cell that no spreadsheet computes: behind an apostrophe if it begins as a formula does."""
    return f"'{text}" if text.lstrip(" \n").startswith(FORMULA_STARTS) else text


def file_name(text: str) -> str:
    """The text as the name of one file or folder: letters, digits and ``._-`` only, no dot or hyphen in front."""
    name = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in text)
    return name.lstrip(".-")[:LONGEST_FILE_NAME] or "unnamed"
