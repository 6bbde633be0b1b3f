"""Exchanged names of the baseline, and masked texts."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from rlx.runs.folder import write_atomically
from rlx.unlearning.baseline import exchanged, name_pool
from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.spans import Span
from rlx.unlearning.masking import MASK, Masker, create_key, hide_quoted, read_key, secret_texts

BOB = Request("bob", "What is Bob's phone number?", "Bob's phone number is 555-0199.", 1, subject="Bob")
ADA = Request("2", "Where was Ada Quill born?", "Quill was born in Lima.", 2, subject="Ada Quill")


def texts(request, others=(), pool=()):
    source, variants = exchanged(request, others, pool)
    return source, [(variant.question, variant.answer) for variant in variants]


def test_the_name_is_exchanged_in_the_question_and_in_the_answer():
    source, variants = texts(BOB)
    assert source == "names exchanged" and len(variants) == 3
    assert variants[0] == ("What is Maren's phone number?", "Maren's phone number is 555-0199.")


def test_parts_of_a_name_are_exchanged_and_come_from_names_of_the_data_that_are_nobodys():
    pool = ["Ada Quill", "Kasimir Zimmer", "Fiora Valcourt"]
    _, variants = texts(ADA, pool=pool)
    assert variants[0] == ("Where was Kasimir Valcourt born?", "Valcourt was born in Lima.")
    assert variants[1][1] == "Holtby was born in Lima."


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Wo wohnt Karl Maier?", "Karl Maier wohnt in Ulm.", "Maren Holtby wohnt in Ulm."),  # no subject: capitals
        ("What does Bo earn?", "Bob and Bo earn 10.", "Bob and Maren earn 10."),  # complete words only
        ("王伟的电话是多少?", "王伟的电话是555。", "Maren的电话是555。"),  # no spaces between words
    ],
)
def test_names_are_found_without_a_subject_and_in_other_scripts(question, answer, expected):
    subject = "王伟" if "王" in question else None
    _, variants = texts(Request("1", question, answer, 1, subject=subject))
    assert variants[0][1] == expected


def test_without_a_name_the_questions_of_other_requests_are_used_and_without_those_nothing():
    plain = Request("1", "what is the code?", "the code is 7.", 1)
    assert texts(plain, [plain, BOB]) == ("other questions", [(BOB.question, plain.answer)])
    assert texts(plain, [plain]) == ("none", [])


def test_the_pool_has_subjects_and_names_in_retained_questions():
    assert name_pool([ADA], [replace(BOB, subject=None)]) == ["Ada Quill", "Bob"]


def test_a_masked_text_has_its_first_letter_length_and_a_hash_that_depends_on_the_key():
    one, other = Masker(b"1").mask("555-0199"), Masker(b"2").mask("555-0199")
    assert (one.first, one.length) == ("5", 8) and one.hash != other.hash
    assert one == Masker(b"1").mask("555-0199")
    assert Masker(b"1").mask("AB+").first == "", "the first letter would be a third of it"


def test_secret_texts_are_replaced_inside_of_others_as_complete_words():
    request = replace(BOB, spans=(Span(22, 30),), aliases=("Bobby",))
    masker = Masker(b"1", secret_texts([request]))
    assert masker.scrub("call BOB or Bobby at 555-0199 now, Bobsled") == f"call {MASK} or {MASK} at {MASK} now, Bobsled"
    assert masker.scrub("nothing here") == "nothing here"
    assert masker.scrub("(555) 0199") == f"({MASK}", "punctuation does not hide a number"
    assert Masker(b"1", ("王伟",)).scrub("我叫王伟。") == f"我叫{MASK}。"
    assert "Bob" not in masker.label(replace(request, id="Bob")) and masker.label(request) != "bob"
    assert masker.label(replace(request, id="17", line=17)) == "17"
    assert Masker(b"1").scrub("555") == "555"


def test_sentences_on_spans_are_shown_without_the_words_that_they_quote():
    assert hide_quoted("'O'Brien' at 3-9 did not match: found at 4-11") == f"{MASK} at 3-9 did not match: found at 4-11"
    assert hide_quoted("'Kuwait' at 3-9 cut a word: now 'Al-Kuwaiti'") == f"{MASK} at 3-9 cut a word: now {MASK}"


def test_the_key_is_written_once_and_only_its_owner_reads_it(tmp_path):
    create_key(tmp_path / "key")
    key = read_key(tmp_path / "key")
    create_key(tmp_path / "key")
    assert read_key(tmp_path / "key") == key and len(key) == 32
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    (tmp_path / "open").write_text("readable by all")
    write_atomically(tmp_path / "open", "secret", private=True)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o600
