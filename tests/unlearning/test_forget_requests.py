"""Forget requests: every line taken or named, spans repaired or refused, coverage counted."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlx.errors import UserError
from rlx.unlearning.data.requests import coverage, read_requests, with_spans
from rlx.unlearning.data.spans import Span, name_spans, repair, surprising_spans
from rlx.unlearning.data.text_units import one_word

TOFU = Path(__file__).parents[2] / "../shared/data/tofu"
ANSWER = "The author Basil Al-Kuwaiti was born in Kuwait."


def texts(answer: str, spans: tuple[Span, ...]) -> list[str]:
    return [answer[span.start : span.end] for span in spans]


@pytest.mark.parametrize(
    ("span", "expected", "repaired", "refused"),
    [
        ((11, 27, "Basil Al-Kuwaiti"), ["Basil Al-Kuwaiti"], 0, 0),
        ((20, 26, "Kuwait"), ["Kuwaiti"], 1, 0),
        ((38, 44, "Kuwait"), ["Kuwait"], 1, 0),
        ((12, 15, None), ["Basil"], 1, 0),
        ((500, 510, "Basil"), ["Basil"], 1, 0),
        ((500, 510, None), [], 0, 1),
        ((5, 5, None), [], 0, 1),
        ((-3, 4, None), [], 0, 1),
        ((0, 5, "Cairo"), [], 0, 1),
    ],
)
def test_a_broken_span_is_mended_or_named(
    span: tuple[int, int, str | None], expected: list[str], repaired: int, refused: int
) -> None:
    result = repair(ANSWER, [span])
    assert texts(ANSWER, result.spans) == expected
    assert (len(result.repaired), len(result.refused)) == (repaired, refused)


@given(st.text(max_size=30), st.integers(-5, 35), st.integers(-5, 35))
def test_a_used_span_never_leaves_the_text_nor_cuts_a_word(answer: str, start: int, end: int) -> None:
    for span in repair(answer, [(start, end, None)]).spans:
        assert 0 <= span.start <= span.end <= len(answer)
        for edge in (span.start, span.end):
            inside = 0 < edge < len(answer) and span.start < span.end
            assert not (inside and one_word(answer, edge))


def test_overlapping_spans_are_one() -> None:
    assert repair("one two three", [(0, 7, None), (4, 13, None)]).spans == (Span(0, 13),)


def test_the_subject_is_found_whole_else_by_first_or_last_name_and_never_inside_a_word() -> None:
    assert texts(ANSWER, name_spans(ANSWER, ["basil al-kuwaiti"])) == ["Basil Al-Kuwaiti"]
    assert texts("Ms. Doe wrote. Doer!", name_spans("Ms. Doe wrote. Doer!", ["Jo Doe"])) == ["Doe"]
    assert name_spans(ANSWER, ["Nobody"]) == ()


def test_surprising_tokens_make_whole_words() -> None:
    offsets = [(0, 3), (3, 7), (8, 10), (10, 11)]
    assert texts("Madrid is.", surprising_spans("Madrid is.", offsets[:3], [4.0, 0.1, 0.2], 2.0)) == ["Madrid"]
    assert surprising_spans("a !", [(0, 1), (2, 3)], [0.0, 9.0], 2.0) == ()


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_request_file_is_read_whole(tmp_path: Path) -> None:
    path = write(
        tmp_path / "f.jsonl",
        '{"id": 7, "question": "Who?", "answer": "Jo Doe.", "spans": [[0, 2]]}',
        "",
        '{"text": "Jo Doe lives here.", "subject": "Jo Doe"}',
        '{"question": "Where?", "answer": "It is so.", "subject": "Jo Doe"}',
    )
    requests = with_spans(read_requests(path), "auto")
    assert [r.id for r in requests] == ["7", "3", "4"]
    assert [texts(r.answer, r.spans) for r in requests] == [["Jo"], ["Jo Doe"], []]
    assert [r.source for r in requests] == ["given", "subject", ""]
    report = coverage(requests)
    assert (report.requests, report.covered, report.uncovered) == (3, 2, ("4 (line 4)",))
    assert texts("Jo Doe.", with_spans(requests, "all")[0].spans) == ["Jo Doe."]
    assert "4 (line 4)" in " ".join(report.lines())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"question": "Who?"', "not JSON"),
        ('["Who?"]', "list"),
        ('{"question": "Who?"}', "'answer'"),
        ('{"answer": "Jo."}', "without 'question'"),
        ('{"question": "Who?", "answer": "  "}', "empty"),
        ('{"question": "Who?", "answer": 3}', "not a text"),
        ('{"question": "Who?", "answer": "Jo", "spann": []}', "spann"),
        ('{"question": "Who?", "answer": "Jo", "spans": [[0]]}', "a span is"),
        ('{"question": "Who?", "answer": "Jo", "spans": [["0", 1]]}', "whole numbers"),
        ('{"id": "1", "question": "Who?", "answer": "Jo"}', "that of line 1"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: str, words: str) -> None:
    path = write(tmp_path / "f.jsonl", '{"question": "Who?", "answer": "Jo."}', line)
    with pytest.raises(UserError, match="line 2") as caught:
        read_requests(path)
    assert words in str(caught.value)


@pytest.mark.skipif(not TOFU.is_dir(), reason="the TOFU texts are not on this machine")
def test_twelve_of_the_published_forget10_rows_have_no_span_and_seven_spans_cut_a_word() -> None:
    requests = read_requests(TOFU / "forget10_spans.jsonl")
    report = coverage(with_spans(requests, "given"))
    assert (report.requests, report.covered, len(report.uncovered)) == (400, 388, 12)
    assert len(report.repaired) == 7 and not report.refused
    assert coverage(with_spans(requests, "auto")).covered == 400
