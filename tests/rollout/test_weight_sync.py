"""The comparison that stops a run whose sampler holds other weights than the trainer, without vLLM."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from rlx.data.prompts import Prompt
from rlx.engine.export import save_model
from rlx.engine.lora import causal_lm, merged_weights
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.rewards.verdict import Verdict
from rlx.rl.rollouts import Graded
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampling
from rlx.rollout.sync_check import TOLERANCES, SyncSchedule, check_sync
from rlx.specs.resolve_train import EMBEDDED_MODEL
from rlx.specs.train import Model, Optim
from tests.devices import DEVICE

PROMPTS = [(7, 10, 8, 14), (5, 3, 4, 2, 14)]


@pytest.fixture
def lm():
    return AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL, dtype=torch.float32).to(DEVICE)


def rollout(sampler: HFSampler) -> Graded:
    groups = sampler.sample(PROMPTS, [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], Sampling(0.9, 8, (2,)))
    return Graded(
        prompts=[Prompt(id=str(q), tokens=tokens, question="", answer="") for q, tokens in enumerate(PROMPTS)],
        prompt_indices=[0, 1],
        responses=[response for group in groups for response in group],
        texts=[""] * 10,
        verdicts=[Verdict(0.0, "wrong", None)] * 10,
        rewards_b=torch.zeros(10, dtype=torch.float64),
        samples=5,
    )


def check(lm: torch.nn.Module, graded: Graded) -> dict[str, float]:
    engine = Engine(lm, Model(precision="float32"), Optim(), total_updates=1, max_tokens=512)
    return check_sync(graded.sequences, graded.responses, engine, 0.9, TOLERANCES["float32"])


def test_equal_weights_pass_and_their_distance_is_logged(lm):
    found = check(lm, rollout(HFSampler(copy.deepcopy(lm))))
    assert found["sync/logprob_diff"] < 1e-5
    assert found["sync/tokens"] == pytest.approx(50, abs=16)


@pytest.mark.parametrize("stale", ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"])
def test_one_stale_matrix_stops_the_run(lm, stale):
    graded = rollout(HFSampler(copy.deepcopy(lm)))
    with torch.no_grad():
        weight = lm.get_parameter(stale)
        weight += 1e-3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    with pytest.raises(UserError, match="sampler and trainer disagree: .* these samples were not used"):
        check(lm, graded)


def test_log_probs_that_are_not_numbers_stop_the_run(lm):
    graded = rollout(HFSampler(copy.deepcopy(lm)))
    with torch.no_grad():
        lm.model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="differ by nan"):
        check(lm, graded)


def test_the_first_three_steps_of_a_process_and_every_nth_are_compared():
    watch = SyncSchedule(TOLERANCES["float32"], every=5)
    assert [step for step in range(8, 21) if watch.due(step, began=7)] == [8, 9, 10, 15, 20]
    assert [step for step in range(1, 9) if SyncSchedule(TOLERANCES["float32"], every=0).due(step, began=0)] == [
        1,
        2,
        3,
    ]


def test_merged_weights_are_those_of_the_saved_model(lm, tmp_path):
    adapted = get_peft_model(lm, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    ours = {name: weight.detach().cpu() for name, weight in merged_weights(causal_lm(adapted))}

    class Words:
        def save_pretrained(self, folder):
            pass

    save_model(adapted, Words(), tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).requires_grad_(False)
    theirs = dict(theirs.named_parameters())
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-6
    untouched = AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL, dtype=torch.float32)
    assert not torch.equal(ours["model.layers.0.mlp.up_proj.weight"], untouched.model.layers[0].mlp.up_proj.weight)
