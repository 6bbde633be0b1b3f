"""Text of data, models and run folders is shown in every format and acts in none."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlx.console import print_out, table, warn
from rlx.errors import UserError
from rlx.inert import csv_cell, file_name, latex_text, markdown_text, visible

HOSTILE = [
    "\x1b[2J\x1b]0;title\x07", "[bold red]x[/bold red]", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "\\input{/etc/passwd}", "$\\write18{ls}$", "a|b", "**b**", "`c`", "[a](javascript:x)", "![a](http://x/y)", "=1+1",
    "+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1", " =1+1", "\u202egpj.exe", "x\ny", "../../etc/x", "a=b:c", "\x9b2J",
    "# head", "{{ 7*7 }}", "%0a", "&lt;b&gt;", "~x~", "^^I", "x\u2028y",
]  # fmt: skip
ACTIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal acts on, except line ends and tabs."""


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_gets_no_control_characters_and_no_markup(text, capsys):
    print_out(text)
    print_out(table(text, [f"h{text}"], [[text]]))
    warn(text)
    captured = capsys.readouterr()
    assert not ACTIVE.search(captured.out + captured.err)
    assert not ACTIVE.search(str(UserError(f"model.path is '{text}'", fix=text)))
    if text.startswith("[bold"):
        assert captured.out.count(text) == 4


@given(st.text())
def test_visible_text_has_no_active_characters_and_ordinary_text_is_unchanged(text):
    assert not ACTIVE.search(visible(text))
    if text.isprintable():
        assert visible(text) == text or ACTIVE.search(text)


@given(st.text())
def test_file_names_are_plain_short_and_not_hidden(text):
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}", file_name(text))


@given(st.text())
def test_no_cell_of_a_csv_file_begins_as_a_formula(text):
    assert not csv_cell(text).lstrip(" \n").startswith(("=", "+", "-", "@", "\t", "\r"))
    assert csv_cell(text).removeprefix("'") == text or csv_cell(text) == text


@given(st.text())
def test_every_special_character_of_latex_is_escaped(text):
    plain = latex_text(text)
    for command in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"$\pm$", "$<$", "$>$"):
        plain = plain.replace(command, "")
    assert not re.sub(r"\\[&%$#_{}]", "", plain).strip("".join(set(plain) - set("\\&%$#_{}~^"))).strip()
    assert "\n" not in plain


@given(st.text())
def test_markdown_text_opens_no_html_no_link_and_no_cell(text):
    shown = markdown_text(text)
    assert not re.search(r"<[A-Za-z/!?]", shown)
    assert not re.search(r"\][(\[:]", shown)
    assert not re.search(r"(?<!\\)(?:\\\\)*[|*`$~]", re.sub(r"\\[\\`*|$~_(\[:#>+=.)-]", "", shown))
    assert "\n" not in shown
