"""At which strengths the attacks are made, what they are called, and that earlier specs keep their ids."""

from __future__ import annotations

import pytest

from rlx.errors import UserError
from rlx.specs.resolve_unlearn import resolve_unlearn
from rlx.specs.unlearn import UnlearnEvaluation
from rlx.unlearning.attacks import in_other_wording
from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.spans import Span
from rlx.unlearning.strengths import attack_name, strengths_of
from rlx.unlearning.verdict import probe_name

HUB = {"model": {"path": "a/b"}, "forget": {"source": "tofu/forget05"}}


def amounts(requests, others, **settings):
    return [(s.name, s.amount) for s in strengths_of(UnlearnEvaluation(**settings), requests, others)]


def test_the_default_strengths_from_weak_to_strong():
    assert amounts(200, 100) == [
        ("relearn_1", 2), ("relearn", 10), ("relearn_20", 40), ("quantize", 4), ("quantize_8", 8), ("prefix_1", 1),
        ("prefix", 3), ("prefix_5", 5), ("paraphrase", 0),
    ]  # fmt: skip


def test_strengths_that_come_to_the_same_are_measured_once():
    few = {"attacks": ["relearn"], "strengths": {"paraphrase": False}}
    assert amounts(40, 20, **few) == [("relearn_1", 1), ("relearn_5", 2), ("relearn_20", 8), ("relearn", 10)]
    assert amounts(4, 2, **few) == [("relearn_20", 1), ("relearn", 2)]
    assert amounts(2, 1, **few) == [("relearn", 1)]
    assert amounts(1, 0, **few) == []
    assert amounts(9, 5, attacks=[]) == []


def test_specs_of_earlier_versions_keep_their_ids_and_other_strengths_get_one():
    assert resolve_unlearn(HUB).run_id == "palu_b_forget05_s0-c2e7852c58"
    keys = {"quantize_bits": 8, "prefix_tokens": 2, "relearn_requests": 3, "attacks": ["prefix", "relearn"]}
    assert resolve_unlearn({**HUB, "evaluation": keys}).run_id == "palu_b_forget05_s0-ad38a80b8d"
    other = {"strengths": {"relearn_percent": [50]}}
    assert resolve_unlearn({**HUB, "evaluation": other}).run_id != resolve_unlearn(HUB).run_id


@pytest.mark.parametrize("wrong", [{"relearn_percent": [0]}, {"quantize_bits": [3]}, {"prefix_tokens": [0]}])
def test_a_strength_that_cannot_be_is_named(wrong):
    with pytest.raises(UserError, match=f"evaluation.strengths.{next(iter(wrong))}"):
        resolve_unlearn({**HUB, "evaluation": {"strengths": wrong}})


def test_a_reader_is_told_the_strength():
    settings = UnlearnEvaluation()
    assert attack_name("relearn_20", settings) == "Relearning 20 % of the requests"
    assert attack_name("quantize", settings) == "Rounding the weights to 4 bits"
    assert attack_name("prefix_1", settings) == "Giving the first token of the answer"
    assert [probe_name(name) for name in ("relearn_5", "quantize_8", "prefix_5", "prefix", "probability")] == [
        "relearning 5 % of the requests", "rounding the weights to 8 bits", "the first 5 tokens of the answer",
        "the start of the answer", "probability",
    ]  # fmt: skip


def test_a_request_in_other_words_is_its_paraphrased_question_or_its_paraphrase_up_to_the_sensitive_part():
    request = Request("1", "Where was Jo born?", "Jo was born in Lima.", 1, spans=(Span(15, 19),))
    assert in_other_wording(request) is None
    asked = Request("1", "Where?", "In Lima.", 1, spans=(Span(3, 7),), question_paraphrase="In which city?")
    assert [(v.question, v.answer, start) for v, start in [in_other_wording(asked)]] == [
        ("In which city?", "In Lima.", 0)
    ]
    told = Request("1", "Where?", "In Lima.", 1, spans=(Span(3, 7),), paraphrase="The birthplace is LIMA.")
    variant, start = in_other_wording(told)
    assert (variant.answer, variant.answer[:start]) == ("The birthplace is LIMA.", "The birthplace is ")
    unlike = Request("1", "Where?", "In Lima.", 1, spans=(Span(3, 7),), paraphrase="The capital of Peru.")
    assert in_other_wording(unlike) is None, "where the answer begins in it is not known"
