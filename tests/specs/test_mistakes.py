"""Every kind of error that pydantic has becomes a sentence of ours, with key, value, what is allowed, nearest key."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from pydantic_core import _pydantic_core

from rlx.errors import UserError
from rlx.registry import PACKAGES, get, names
from rlx.specs.evaluate import EvalSpec
from rlx.specs.mistakes import dotted_keys, field_at
from rlx.specs.reading import validate
from rlx.specs.sentences import PATTERNS, REQUIREMENTS, WHOLE_SENTENCES, requirement
from rlx.specs.study import StudySpec
from rlx.specs.train import Spec
from rlx.specs.unlearn import UnlearnSpec

SPECS = (Spec, UnlearnSpec, EvalSpec, StudySpec)


def sentence(content: dict[str, object], model: type[BaseModel] = Spec) -> str:
    with pytest.raises(UserError) as caught:
        validate(content, model)
    return str(caught.value)


@pytest.mark.parametrize("kind", _pydantic_core.list_all_errors(), ids=lambda kind: kind["type"])
def test_every_kind_of_error_has_words_of_ours(kind):
    name, context = kind["type"], kind.get("example_context") or {}
    assert (name in REQUIREMENTS) != (name in WHOLE_SENTENCES)
    if name in REQUIREMENTS:
        text = requirement(name, context)
    else:
        text = WHOLE_SENTENCES[name].format_map({"key": "k", "value": "v", "error": "e", **context})
    assert text and "{" not in text.replace("{key: value}", "")
    for word in ("Input", "Field", "should", "valid dictionary", "parse", "String"):
        assert word not in text


def test_every_pattern_of_a_spec_has_words():
    for spec in SPECS:
        for key in dotted_keys(spec):
            field = field_at(spec, key.split("."))
            for rule in field.metadata if field is not None else []:
                pattern = getattr(rule, "pattern", None)
                assert pattern is None or pattern in PATTERNS, key


@pytest.mark.parametrize(
    ("model", "content", "parts"),
    [
        (Spec, {"run_name": "a b"}, ["run_name is 'a b'", "begins with a letter or a digit"]),
        (EvalSpec, {"model": "x", "prompt": "hi"}, ["prompt is 'hi'", "{problem}"]),
        (EvalSpec, {}, ["model is missing", "a hub id"]),
        (StudySpec, {"name": "x"}, ["baseline is missing", "1 more: axes", "tested against"]),
        (StudySpec, {"name": "x", "baseline": "y", "axes": {}}, ["axes is {}", "at least 1 entries, not 0"]),
        (Spec, {"batch": {"forget": 3}}, ["unknown key batch.forget", "it is a key of rlx unlearn"]),
        (Spec, {"forget": {"source": "x"}}, ["unknown key forget", "rlx unlearn"]),
        (UnlearnSpec, {"algorithm": {"name": "dgpo"}}, ["unknown key algorithm", "rlx train"]),
        (Spec, {"lr": 1}, ["unknown key lr", "did you mean 'optim.lr'?"]),
        (Spec, {"model": {"gradient_checkpointing": "atuo"}}, ["'atuo'", "true or false or 'auto'", "default is auto"]),
        (Spec, {"model": {"lora": {"target_modules": 3}}}, ["model.lora.target_modules is 3", "text", "a list"]),
        (Spec, {"model": {"lora": {"continue": "x"}}}, ["model.lora.continue is 'x'", "true or false"]),
        (Spec, {"model": {"lora": 5}}, ["model.lora is 5", "keys such as alpha"]),
        (Spec, {"rewards": [{"name": "rlx", "weight": "x"}]}, ["rewards.0.weight is 'x'", "a number"]),
        (Spec, {"rewards": [{"nme": "rlx"}]}, ["unknown key rewards.0.nme", "did you mean 'name'"]),
        (Spec, {"optim": {"betas": "x"}}, ["optim.betas is 'x'", "a list", "[0.9, 0.999]"]),
        (Spec, {"optim": {"lr": float("nan")}}, ["optim.lr is nan", "a finite number"]),
        (Spec, {"steps": 0, "seed": -1}, ["steps is 0", "1 more: seed", "default is 100"]),
        (Spec, {3: 4}, ["the key 3 is not text"]),
        (UnlearnSpec, {"evaluation": {"attacks": ["relern"]}}, ["evaluation.attacks.0", "did you mean 'relearn'"]),
    ],
)
def test_a_mistake_has_key_value_and_what_is_allowed(model, content, parts):
    text = sentence(content, model)
    for part in parts:
        assert part in text
    assert "\n" not in text and "Input" not in text and "should" not in text


def test_a_large_wrong_value_is_not_printed_in_full():
    text = sentence({"steps": {f"key{number}": "value" * 20 for number in range(30)}})
    assert text.startswith("steps is a mapping, but it must be an integer") and len(text) < 200


def test_an_unknown_component_is_named_in_words_and_another_kind_is_recognised():
    for kind in PACKAGES:
        with pytest.raises(UserError) as caught:
            get(kind, "nosuchname")
        assert "is not a known unlearn;" not in str(caught.value) and "is not a known policy;" not in str(caught.value)
    with pytest.raises(UserError, match="is not a known policy loss: .*rlx unlearn --method palu"):
        get("policy", "palu")
    assert "palu" in names("unlearn")
