"""Specs: what a user may write, and the error message for every mistake."""

from __future__ import annotations

import pytest

from rlx.errors import UserError
from rlx.numerics.advantages import ADVANTAGES
from rlx.numerics.kl import KL_FORMS
from rlx.specs.algorithm import Mismatch
from rlx.specs.reading import apply_overrides, read_spec
from rlx.specs.resolve_train import resolve
from rlx.specs.resolve_unlearn import resolve_unlearn
from rlx.specs.train import Advantage, Algorithm, Spec


def sentence(content):
    with pytest.raises(UserError) as caught:
        resolve(content)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 2
    return text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"algoritm": {}}, ["unknown key algoritm", "did you mean 'algorithm'", "choices"]),
        ({"optim": {"learning_rate": 1}}, ["unknown key optim.learning_rate", "choices", "lr"]),
        ({"model": {"lora": {"rnk": 3}}}, ["unknown key model.lora.rnk", "did you mean 'rank'"]),
        ({"steps": "many"}, ["steps is 'many'", "an integer"]),
        ({"steps": 0}, ["steps is 0", "greater than or equal to 1"]),
        ({"optim": {"lr": float("nan")}}, ["optim.lr is nan"]),
        ({"optim": 3}, ["optim is 3"]),
        ({"algorithm": {"name": "dgop"}}, ["algorithm.name 'dgop'", "did you mean 'dgpo'", "grpo", "maspo"]),
        ({"algorithm": {"name": "dgpo@nosuch"}}, ["algorithm.name 'dgpo@nosuch'", "choices"]),
        ({"algorithm": {"name": "./nosuch.py:loss"}}, ["there is no file", "nosuch.py"]),
        ({"algorithm": {"params": {"n": -1}}}, ["algorithm.params.n is -1", "greater than 0"]),
        ({"algorithm": {"params": {"n": "two"}}}, ["algorithm.params.n is 'two'", "a number"]),
        ({"algorithm": {"params": {"clip": 1}}}, ["unknown key algorithm.params.clip", "clip_low"]),
        (
            {"algorithm": {"mismatch": {"high": 3}, "importance_cap": 2}},
            ["algorithm.importance_cap is 2", "algorithm.mismatch is given too", "remove algorithm.importance_cap"],
        ),
        (
            {"algorithm": {"mismatch": {"mode": "mask", "low": 2, "high": 2}}},
            ["algorithm.mismatch.low is 2", "high=2", "set low below high"],
        ),
        ({"algorithm": {"mismatch": {"mode": "clip"}}}, ["algorithm.mismatch.mode is 'clip'", "truncate", "mask"]),
        ({"algorithm": {"mismatch": {"levl": "token"}}}, ["algorithm.mismatch.levl", "did you mean 'level'"]),
        ({"algorithm": {"mismatch": {"high": 0}}}, ["algorithm.mismatch.high is 0", "greater than 0"]),
        ({"algorithm": {"top_entropy": 0}}, ["algorithm.top_entropy is 0", "greater than 0"]),
        ({"algorithm": {"top_entropy": 1.5}}, ["algorithm.top_entropy is 1.5", "less than or equal to 1"]),
        ({"algorithm": {"entropy_coef": -1}}, ["algorithm.entropy_coef is -1", "greater than or equal to 0"]),
        ({"advantage": {"name": "remax"}}, ["advantage.name is 'remax'", "choices", "opo"]),
        ({"algorithm": {"name": "luspo", "reduction": "token-mean"}}, ["algorithm.reduction", "seq-mean-token-sum"]),
        ({"advantage": {"name": "gpo"}}, ["advantage.name is 'gpo'", "did you mean 'grpo'"]),
        ({"reward": {"name": "arithmetics"}}, ["reward.name 'arithmetics'", "did you mean 'arithmetic'"]),
        ({"rollout": {"top_p": 0.9}}, ["rollout.top_p is 0.9", "full vocabulary", "set rollout.top_p=1"]),
        ({"rollout": {"top_k": 20}}, ["rollout.top_k is 20", "full vocabulary"]),
        ({"rollout": {"min_p": 0.1}}, ["rollout.min_p is 0.1", "full vocabulary"]),
        ({"rollout": {"temperature": 0}}, ["rollout.temperature is 0"]),
        ({"rollout": {"samples_per_prompt": 1}}, ["rollout.samples_per_prompt is 1", "2 or more"]),
        ({"batch": {"prompts": 10}}, ["batch.prompts is 10", "1, 2, 5, 10"]),
        ({"optim": {"warmup_updates": 1000}}, ["optim.warmup_updates is 1000", "400"]),
        ({"model": {"path": "some/model"}}, ["data.source is not given", "--data"]),
        ({"data": {"source": "x.jsonl"}}, ["data.source is 'x.jsonl'", "embedded", "--model"]),
        ({"run_name": "../elsewhere"}, ["run_name is '../elsewhere'"]),
        ({"seed": -1}, ["seed is -1"]),
    ],
)
def test_a_mistake_ends_in_one_sentence_with_key_value_and_choices(content, parts):
    text = sentence(content)
    for part in parts:
        assert part in text, text


def test_the_empty_spec_is_the_complete_embedded_experiment():
    resolved = resolve({})
    assert resolved.spec.data.source == resolved.spec.reward.name == "arithmetic"
    assert resolved.spec.algorithm.name == "dgpo"
    assert resolved.spec.algorithm.params == {
        "n": 1.0, "m": 2.0, "clip_low": 0.2, "clip_high": 0.2, "dual_clip": None
    }  # fmt: skip
    assert resolved.spec.optim.lr == 1e-4
    assert resolved.total_updates == 400
    assert resolved.fingerprints["model"].startswith("sha256:")


def test_resolving_a_resolved_spec_changes_nothing():
    once = resolve({"algorithm": {"name": "maspo"}, "seed": 3})
    again = resolve(once.spec.model_dump(mode="json"))
    assert again == once


def test_the_users_keys_override_every_recipe():
    assert resolve({"optim": {"lr": 5e-5}, "rollout": {"max_new_tokens": 20}}).spec.optim.lr == 5e-5


def test_automatic_gradient_checkpointing_has_the_id_of_the_former_default():
    ids = [resolve({"model": {"gradient_checkpointing": value}}).run_id for value in ("auto", False, True)]
    assert ids[0] == ids[1] == resolve({}).run_id != ids[2]
    assert resolve({}).spec.model.gradient_checkpointing == "auto"
    unlearning = [resolve_unlearn({"model": {"gradient_checkpointing": value}}).run_id for value in ("auto", False)]
    assert unlearning[0] == unlearning[1]


def test_the_former_key_of_truncation_is_read_and_has_the_id_of_the_new_one():
    former = resolve({"algorithm": {"importance_cap": 2}})
    # The id that this spec had when importance_cap was the only key.
    assert former.run_id == "dgpo_embedded_arithmetic_s0-54e55805b0"
    assert former.spec.algorithm.correction == Mismatch(mode="truncate", high=2.0)
    assert resolve({"algorithm": {"mismatch": {"high": 2}}}).run_id == former.run_id
    others = [{"high": 3}, {"mode": "mask"}, {"low": 0.5}, {"level": "sequence"}]
    ids = [resolve({"algorithm": {"mismatch": mismatch}}).run_id for mismatch in others]
    assert len({former.run_id, resolve({}).run_id, *ids}) == len(others) + 2


def test_the_official_whitening_is_another_run_than_that_over_samples_which_keeps_its_id():
    samples = resolve({"advantage": {"name": "reinforce_pp_samples"}})
    # The id that advantage.name=reinforce_pp had when it whitened over samples.
    assert samples.run_id == "dgpo_embedded_arithmetic_s0-e4c1697a55"
    assert resolve({"advantage": {"name": "reinforce_pp"}}).run_id != samples.run_id
    assert resolve({"algorithm": {"name": "reinforce_pp"}}).spec.advantage.name == "reinforce_pp"


def test_the_run_id_follows_from_what_is_computed_and_not_from_how_it_is_tracked():
    ids = [
        resolve(content).run_id
        for content in ({}, {"seed": 1}, {"algorithm": {"params": {"n": 2}}}, {"steps": 7}, {"optim": {"lr": 2e-4}})
    ]
    assert len(set(ids)) == len(ids)
    assert resolve({"tracker": {"mlflow": False}}).run_id == ids[0]
    assert resolve({"algorithm": {"params": {"n": 1.0}}}).run_id == ids[0]
    assert resolve({"run_name": "mine"}).run_id == "mine-" + ids[0].rsplit("-", 1)[1]


def test_a_changed_data_file_is_another_run(tmp_path):
    file = tmp_path / "rows.jsonl"
    content = {"model": {"path": "some/model"}, "data": {"source": str(file)}}
    file.write_text('{"prompt": "1+1", "answer": "2"}\n')
    first = resolve(content).run_id
    file.write_text('{"prompt": "1+1", "answer": "3"}\n')
    assert resolve(content).run_id != first


def test_overrides_are_parsed_as_yaml_and_applied_to_the_file(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("seed: 4\noptim:\n  lr: 1e-5\n")
    content = apply_overrides(read_spec(file), ["optim.lr=2e-5", "algorithm.params.n=2", "model.lora={rank: 8}"])
    resolved = resolve(content).spec
    assert (resolved.seed, resolved.optim.lr, resolved.algorithm.params["n"]) == (4, 2e-5, 2.0)
    assert resolved.model.lora is not None and resolved.model.lora.rank == 8


@pytest.mark.parametrize(
    ("sets", "part"),
    [(["seed"], "--set 'seed' has no key or no '='"), (["=3"], "no key"), (["a..b=3"], "no key"),
     (["seed=[1"], "--set seed: '[1' is not a YAML value"), (["seed.x=1"], "key seed is 4, not a section")],
)  # fmt: skip
def test_a_broken_set_is_named(sets, part):
    with pytest.raises(UserError) as caught:
        apply_overrides({"seed": 4}, sets)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("- 1\n- 2\n", "is a list"),
        ("a: [1\nb: 2\n", "is not YAML at line"),
        ("\tx: 1", "is not YAML"),
    ],
)
def test_a_broken_spec_file_is_named(tmp_path, text, part):
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_spec(file)
    assert part in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_spec_that_is_missing_a_folder_or_not_text_is_named(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    for path, part in ((tmp_path / "no.yaml", "there is no spec file"), (tmp_path, "cannot be read"),
                       (tmp_path / "binary.yaml", "cannot be read")):  # fmt: skip
        with pytest.raises(UserError, match=part):
            read_spec(path)


def test_the_choices_a_spec_offers_are_those_that_exist():
    assert set(Advantage.model_fields["name"].annotation.__args__) == set(ADVANTAGES)
    assert set(Algorithm.model_fields["kl_form"].annotation.__args__) == set(KL_FORMS)


def test_every_key_of_the_spec_says_what_it_is():
    def check(schema, path):
        for name, field in schema.get("properties", {}).items():
            described = "description" in field or "$ref" in field or "allOf" in field
            assert described, f"{path}.{name} has no docstring"

    schema = Spec.model_json_schema()
    check(schema, "spec")
    for name, section in schema["$defs"].items():
        check(section, name)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("seed: 1\nsteps: 2\nseed: 3\n", "has the key 'seed' at line 1 and again at line 3; remove one of them"),
        ("data:\n  source: a\n  'source': b\n", "has the key 'source' at line 2 and again at line 3"),
        ("axes:\n  x:\n    - {a: 1, b: 2, a: 3}\n", "has the key 'a' at line 3 and again at line 3"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x\n", "has the key '<<' at line 3 and again at line 4"),
    ],
)
def test_a_key_that_a_yaml_mapping_has_twice_is_refused_with_both_lines(tmp_path, text, part):
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_spec(file)
    assert part in str(caught.value) and str(file) in str(caught.value)


def test_a_repeated_key_in_a_set_option_is_refused():
    with pytest.raises(UserError, match="--set data.chat_kwargs: .* has the key 'a' at line 1 and again at line 1"):
        apply_overrides({}, ["data.chat_kwargs={a: 1, a: 2}"])


def test_anchors_are_merged_and_their_keys_replaced(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\nsame: *b\n")
    content = read_spec(file)
    assert content == {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}, "same": {"x": 1, "y": 2}}
