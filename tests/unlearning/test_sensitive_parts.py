"""`auto` marks what an answer adds to its question, each unit complete; `subject` marks the subject and its aliases."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlx.unlearning.data.added_spans import added_spans
from rlx.unlearning.data.requests import Request, read_requests, request_of, with_spans

EVERYDAY = Path(__file__).with_name("everyday_requests.jsonl")
ROOT = Path(__file__).parents[2]
AGREEMENT = ROOT / "experiments" / "studies" / "tofu_span_agreement.py"
TOFU = ROOT / "../shared/data/tofu"


PIECES = [
    *("Bob", "lives", "at", "12", "Elm", "Street", ",", ".", "and", "d'asthme", "Parkinson's", "(555)", '"The', 'End"'),
    *("王芳", "住在", "088号", "हिन्दी", "é-mail"),
]


def texts(request: Request) -> list[str]:
    return [request.answer[span.start : span.end] for span in request.spans]


def marked(question: str, answer: str, subject: str | None = None, how: str = "auto", **more: object) -> list[str]:
    row = {"question": question, "answer": answer, "subject": subject, **more} if question else {"text": answer}
    return texts(with_spans([request_of({**row, "subject": subject}, 1)], how)[0])


@pytest.mark.parametrize("request_", read_requests(EVERYDAY), ids=lambda request: request.id)
def test_the_sensitive_part_of_everyday_requests_is_marked(request_: Request) -> None:
    bare = replace(request_, spans=(), source="")
    (found,) = with_spans([bare], "auto")
    assert texts(found) == texts(request_)
    assert found.source == "added"
    unnamed = with_spans([replace(bare, subject=None)], "auto")[0]
    assert texts(unnamed) == texts(request_), "the subject is not needed where the question holds it"


def test_the_everyday_requests_are_thirty_and_of_every_kind() -> None:
    requests = read_requests(EVERYDAY)
    assert len(requests) == 30
    kinds = {request.id.partition("-")[2].rpartition("-")[0] for request in requests}
    assert kinds == {"phone", "address", "diagnosis", "salary", "e-mail", "date-of-birth", "relation"}


@pytest.mark.parametrize(
    ("question", "answer", "subject", "expected"),
    [
        ("Who owns the red house?", "Bob Miller owns the red house.", "Bob Miller", ["Bob Miller"]),
        ("Who is the tenant's neighbour?", "Bob's phone is 555-0199.", "Bob", ["Bob", "555-0199"]),
        ("", "Bob's phone number is 555-0199.", "Bob", ["555-0199"]),
        ("", "Jo Doe lives here.", "Jo Doe", ["Jo Doe"]),
        ("What is Bob's number?", "It's 555 0199, and his wife has cancer.", "Bob", ["555 0199", "cancer"]),
        ("Does Bob have diabetes?", "Yes, Bob has diabetes.", "Bob", ["Yes"]),
        ("Is Bob married?", "Bob is divorced.", "Bob", ["divorced"]),
        ("What is Bob's status?", "Bob is married.", "Bob", ["married"]),
        ("Who is Bob Miller?", "Bob Miller is a burglar from Ohio.", "Bob Miller", ["burglar", "Ohio"]),
        ("In which city was Bob born?", "Bob was born in Kuwait City, Kuwait.", "Bob", ["Kuwait City, Kuwait"]),
        ("Name a book.", 'It is called "The Silent River."', None, ["The Silent River"]),
        ("What is Bob's IBAN?", "It is DE89 3704 0044 0532 0130 00.", "Bob", ["DE89 3704 0044 0532 0130 00"]),
    ],
)
def test_what_is_added_is_marked_and_a_name_only_where_the_question_lacks_it(
    question: str, answer: str, subject: str | None, expected: list[str]
) -> None:
    assert marked(question, answer, subject) == expected


def test_subject_marks_the_subject_and_its_aliases_and_nothing_else() -> None:
    answer = "Bob Miller, known as Bobby M, lives in Lima; neighbours call him Speedy."
    assert marked("Who lives there?", answer, "Bob Miller", "subject", aliases=["Bobby M", "Speedy"]) == [
        "Bob Miller",
        "Bobby M",
        "Speedy",
    ]
    assert marked("Who lives there?", answer, "Bob Miller", "subject", aliases="Bobby M; Speedy")[1:] == [
        "Bobby M",
        "Speedy",
    ]
    assert marked("谁住在这里？", "王芳住在这里。", "王芳", "subject") == ["王芳"]


def test_a_question_that_holds_an_alias_holds_the_subject() -> None:
    assert marked("What is Bobby's phone number?", "Bob Miller has 555-0199.", "Bob Miller", aliases=["Bobby"]) == [
        "555-0199"
    ]


@given(
    st.sampled_from(["Who is it?", "Where does Bob live?", "", "王芳住在哪里？"]),
    st.lists(st.sampled_from(PIECES)),
)
def test_a_span_lies_in_the_answer_and_never_cuts_a_word(question: str, pieces: list[str]) -> None:
    answer = " ".join(pieces)
    last = 0
    for start, end in added_spans(question, answer):
        assert last <= start < end <= len(answer)
        last = end
        for edge in (start, end):
            if 0 < edge < len(answer) and answer[edge - 1].isascii() and answer[edge].isascii():
                assert not (answer[edge - 1].isalnum() and answer[edge].isalnum())


@pytest.mark.skipif(not TOFU.is_dir(), reason="the TOFU texts are not on this machine")
@pytest.mark.parametrize(
    ("split", "recall", "precision"),
    [("forget01", 0.832, 0.488), ("forget05", 0.799, 0.465), ("forget10", 0.81, 0.466)],
)
def test_the_agreement_with_the_published_spans_of_tofu_is_as_documented(
    split: str, recall: float, precision: float
) -> None:
    counts = runpy.run_path(str(AGREEMENT))["agreement"](read_requests(TOFU / f"{split}_spans.jsonl"))
    assert (counts.recall, counts.precision) == pytest.approx((recall, precision), abs=0.001)
