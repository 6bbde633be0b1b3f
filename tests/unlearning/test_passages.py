"""Documents become passages of the context's length that overlap and lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rlx.unlearning.data.passages import passages
from rlx.unlearning.data.requests import Request, request_of
from rlx.unlearning.data.spans import Span
from rlx.unlearning.data.tokens import Template, encode

TOKENIZER = AutoTokenizer.from_pretrained(Path(__file__).parents[2] / "rlx" / "assets" / "minitofu" / "target")
TEMPLATE = Template(prompt=lambda question: TOKENIZER(question)["input_ids"], end=TOKENIZER.eos_token_id)


def document(text: str, **more: object) -> Request:
    return request_of({"id": "d", "text": text, **more}, 7)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["Bob was born in Lima.", "A", "crime,", "\n\n", "王芳住在北京。", "x" * 30]), min_size=1),
    st.integers(8, 40),
)
def test_every_passage_fits_and_together_they_hold_the_document(pieces, length):
    text = " ".join(f"{number} {piece}" for number, piece in enumerate(pieces)) + "."
    parts = passages(document(text), TOKENIZER, length)
    position = 0
    for part in parts:
        assert part.answer and len(encode(TOKENIZER, TEMPLATE, part).sequence) <= length
        start = text.rfind(part.answer, 0, position + len(part.answer) + 4)
        assert start >= 0 and not text[position:start].strip(), "only white space may lie between passages"
        position = max(position, start + len(part.answer))
    assert position == len(text)


def test_passages_end_with_a_sentence_overlap_and_carry_the_documents_fields():
    text = " ".join(f"Bob was born in the year {year}." for year in range(1950, 1980))
    parts = passages(document(text, subject="Bob", received="2026-03-01"), TOKENIZER, 64)
    assert [part.id for part in parts] == [f"d#{number}" for number in range(1, len(parts) + 1)]
    assert {(p.document, p.author, p.subject, p.received, p.line) for p in parts} == {("d", -7, "Bob", "2026-03-01", 7)}
    assert all(part.answer.rstrip().endswith(".") for part in parts)
    for before, after in zip(parts, parts[1:], strict=False):
        assert before.answer.rstrip()[-12:] in after.answer


def test_given_spans_follow_their_passage():
    text = " ".join(f"Bob was born in the year {year}." for year in range(1950, 1980))
    spans = [[text.index(year), text.index(year) + 4] for year in ("1950", "1979")]
    marked = {
        part.answer[span.start : span.end]
        for part in passages(document(text, spans=spans), TOKENIZER, 64)
        for span in part.spans
    }
    assert marked == {"1950", "1979"}


@pytest.mark.parametrize("row", [{"text": "Bob was born in Lima."}, {"question": "Who?", "answer": "Bob. " * 200}])
def test_what_fits_and_an_answer_to_a_question_are_not_cut(row):
    request = request_of({"spans": [[0, 3]], **row}, 1)
    assert passages(request, TOKENIZER, 64) == [request] and request.spans == (Span(0, 3),)
