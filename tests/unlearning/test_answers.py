"""What answers in an unlearning run: whose weights it holds, when it rests, and that a stale copy is found out."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlx.data.chat import encode
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampling
from rlx.rollout.sync_check import TOLERANCES
from rlx.runs.folder import RunDir
from rlx.specs.resolve_unlearn import EMBEDDED_MODELS, resolve_unlearn
from rlx.specs.train import Data, Model, Optim
from rlx.unlearning.attacks import attacked_rouge
from rlx.unlearning.build import build_unlearn
from rlx.unlearning.data.tokens import Template
from rlx.unlearning.greedy import answer_limit, decoding_protocol
from rlx.unlearning.measures import answers, examine
from rlx.unlearning.subject import Subject


@dataclass
class Copying:
    """A sampler with a copy of the weights, as vLLM is one; ``stale`` keeps the first copy for ever."""

    stale: bool = False
    log: list[str] = field(default_factory=list)
    held: HFSampler | None = None

    def load_weights(self, model):
        self.log.append("load")
        if self.held is None or not self.stale:
            self.held = HFSampler(copy.deepcopy(model))

    def load_from(self, engine):
        self.load_weights(engine.gathered_model())

    def sleep(self):
        self.log.append("rest")

    def sample(self, prompts, seeds, sampling):
        self.log.append("sample")
        return self.held.sample(prompts, seeds, sampling)


def load(name="target"):
    return AutoModelForCausalLM.from_pretrained(EMBEDDED_MODELS / name, dtype=torch.float32)


@pytest.fixture
def subject():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODELS / "target")
    template = Template(lambda question: list(encode(question, Data(), tokenizer)), tokenizer.eos_token_id)
    engine = Engine(load(), Model(), Optim(), total_updates=1, max_tokens=2048)
    sampling = Sampling(0.0, 24, (tokenizer.eos_token_id,))
    return Subject(engine, Copying(), tokenizer, template, sampling, TOLERANCES["float32"])


@pytest.fixture
def requests():
    from rlx.unlearning.data.sets import load_sets

    sets = load_sets(resolve_unlearn({}).spec.forget, 8)
    return sets.forget[:8]


def test_a_copy_answers_as_the_model_itself_and_rests_afterwards(subject, requests):
    forgetful = replace(subject, model=load("retain"))
    own = answers(replace(forgetful, sampler=HFSampler(), tolerance=None), requests)
    assert answers(forgetful, requests) == own and any(own)
    assert subject.sampler.log == ["load", "sample", "rest"]


def test_nothing_is_decoded_of_answers_that_a_forward_pass_shows_to_be_right(subject, requests):
    assert answers(subject, requests) == [request.answer for request in requests]
    assert subject.sampler.log == []


@pytest.mark.parametrize("given", [0, 2])
@pytest.mark.parametrize("name", ["target", "retain"])
def test_answers_are_those_of_decoding_from_the_start(subject, requests, name, given):
    lm, tokenizer = load(name).eval(), subject.tokenizer
    own = replace(subject, sampler=HFSampler(), tolerance=None, model=lm)
    decoded = []
    for request in requests:
        sequence = subject.sequence(request)
        ids = torch.tensor([[*sequence.prompt, *sequence.response[:given]]])
        limit = min(24, 2 * (len(sequence.response) - 1) + 16)
        out = lm.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit)
        decoded.append(tokenizer.decode(out[0, len(sequence.prompt) :], skip_special_tokens=True))
    assert answers(own, requests, [given] * len(requests)) == decoded


def test_an_answer_ends_after_twice_the_right_ones_tokens_and_a_margin(subject, requests):
    never = replace(subject.sampling, max_new_tokens=1000, stop_ids=())
    subject = replace(subject, sampling=never, sampler=HFSampler(), tolerance=None, model=load("retain"))
    right = len(subject.sequence(requests[0]).response) - 1
    assert answer_limit(right, 1000) == 2 * right + 16 and answer_limit(right, 5) == 5
    (text,) = answers(subject, requests[:1])
    assert len(subject.tokenizer(text)["input_ids"]) <= 2 * right + 16
    assert f"after 2 times the tokens of the right answer and 16 more, at most {5} tokens" in decoding_protocol(5)


def test_another_models_answers_come_from_its_own_weights(subject, requests):
    retain = load("retain")
    by_copy = answers(replace(subject, model=retain), requests)
    assert by_copy == answers(replace(subject, sampler=HFSampler(), tolerance=None, model=retain), requests)
    assert by_copy != answers(subject, requests)


@pytest.mark.parametrize("name", ["relearn", "quantize"])
def test_an_attacked_models_answers_come_from_the_attacked_weights(subject, requests, name):
    spec = resolve_unlearn({"optim": {"lr": 1e-2}, "evaluation": {"quantize_bits": 4}}).spec
    halves = (requests[:4], requests[4:])
    plain = replace(subject, sampler=HFSampler(), tolerance=None)
    by_copy = attacked_rouge(name, load, subject, halves, spec)
    assert by_copy.tolist() == attacked_rouge(name, load, plain, halves, spec).tolist()
    if name == "relearn":  # four bits leave this model's answers as they are
        assert by_copy.tolist() != attacked_rouge("none", load, subject, halves, spec).tolist()


def test_a_stale_copy_stops_the_run_before_its_answers_are_used(subject, requests):
    subject = replace(subject, sampler=Copying(stale=True))
    subject.sampler.load_from(subject.engine)
    with torch.no_grad():
        subject.engine.lm.model.layers[0].mlp.down_proj.weight.mul_(
            -2
        )  # enough for wrong answers: right ones are not decoded
    with pytest.raises(UserError, match="sampler and trainer disagree: .*evaluation.engine=hf"):
        examine(subject, {"forget": requests})


def test_the_engine_is_chosen_when_the_spec_is_resolved_and_the_reason_is_kept():
    resolved = resolve_unlearn({})
    assert resolved.spec.evaluation.engine == "hf" and resolved.engine_reason
    asked = resolve_unlearn({"evaluation": {"engine": "vllm"}})
    assert (asked.spec.evaluation.engine, asked.run_id != resolved.run_id) == ("vllm", True)
    shared = resolve_unlearn({"evaluation": {"memory_share": 0.2}})
    assert shared.run_id == resolved.run_id, "where vLLM lies changes no figure"


class Notes:
    offset = 0

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (make test-vllm installs it)")
def test_vllm_answers_as_transformers_do_before_and_after_an_attack(tmp_path):
    rows_by_engine = {}
    for engine in ("hf", "vllm"):
        resolved = resolve_unlearn({"evaluation": {"engine": engine, "limit": 8}})
        notes = Notes()
        (tmp_path / engine).mkdir()
        components = build_unlearn(resolved, RunDir(tmp_path / engine), notes).components
        assert f"answering with {'vLLM' if engine == 'vllm' else 'transformers'}" in notes.lines[0]
        halves = (components.validation[:4], components.final[:8])
        spec = resolved.spec.model_copy(update={"optim": resolved.spec.optim.model_copy(update={"lr": 1e-2})})
        rows_by_engine[engine] = [
            answers(components.subject, components.final),
            answers(replace(components.subject, model=load("retain")), components.final),
            attacked_rouge("relearn", load, components.subject, halves, spec).tolist(),
            attacked_rouge("prefix", load, components.subject, halves, spec).tolist(),
        ]
    assert rows_by_engine["hf"] == rows_by_engine["vllm"]
    assert rows_by_engine["hf"][0] != rows_by_engine["hf"][1]
