"""The transformers sampler against transformers' own generation and the trainer's log-probs."""

from __future__ import annotations

import math

import pytest
import torch

from rlx.numerics.collate import TokenSequence, collate
from rlx.numerics.output_layer.logprobs import Head, token_logprobs
from rlx.rollout.distribution import sampling_logprobs
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampling, sample_seed
from tests.devices import DEVICE
from tests.tiny_models import small_llama

PROMPTS = [[5, 6, 7], [5, 6, 7, 8, 9], [9, 3], [4, 4, 4, 4]]


@pytest.fixture(scope="module")
def lm():
    model = small_llama(eos_token_id=2, pad_token_id=0).eval()
    for parameter in model.parameters():  # sharper than at initialisation, so that greedy choices have no near-ties
        parameter.data *= 4
    return model.to(DEVICE)


def seeds(samples):
    return [[sample_seed(0, q, g) for g in range(samples)] for q in range(len(PROMPTS))]


def test_greedy_tokens_equal_those_of_transformers_generate(lm):
    groups = HFSampler(lm).sample(PROMPTS, [[1]] * 4, Sampling(0.0, 12, (2,)))
    for prompt, (response,) in zip(PROMPTS, groups, strict=True):
        expected = lm.generate(
            torch.tensor([prompt], device=DEVICE), max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=0
        )
        assert list(response.tokens) == expected[0, len(prompt) :].tolist()
        assert response.finished == (response.tokens[-1] == 2)


def test_a_sample_does_not_depend_on_what_else_is_in_the_call(lm):
    sampling = Sampling(1.3, 12, (2,))
    together = HFSampler(lm).sample(PROMPTS, seeds(5), sampling)
    small = HFSampler(lm, batch_size=3).sample(PROMPTS, seeds(5), sampling)
    alone = [HFSampler(lm).sample([p], [s], sampling)[0] for p, s in zip(PROMPTS, seeds(5), strict=True)]
    tokens = [[r.tokens for r in group] for group in together]
    assert tokens == [[r.tokens for r in group] for group in small] == [[r.tokens for r in group] for group in alone]
    assert len({response for group in tokens for response in group}) > 10


def test_recorded_logprobs_are_the_trainers_at_the_sampling_temperature(lm):
    groups = HFSampler(lm).sample(PROMPTS, seeds(4), Sampling(0.7, 12, (2,)))
    sequences = [TokenSequence(tuple(p), r.tokens) for p, g in zip(PROMPTS, groups, strict=True) for r in g]
    batch = collate(sequences).to(DEVICE)
    hidden = lm.get_decoder()(input_ids=batch.input_ids_bs).last_hidden_state[batch.rows_n, batch.columns_n]
    head = Head(lm.lm_head.weight)
    recorded = torch.tensor([x for group in groups for r in group for x in r.logprobs], device=DEVICE)
    at_temperature, _ = token_logprobs(hidden, batch.targets_n, head, temperature=0.7)
    at_one, _ = token_logprobs(hidden, batch.targets_n, head)
    assert (at_temperature - recorded).abs().max() < 1e-5
    assert (at_one - recorded).abs().max() > 0.01


def test_every_response_ends_at_its_stop_token_or_at_the_limit(lm):
    for group in HFSampler(lm).sample(PROMPTS, seeds(30), Sampling(2.0, 12, (2, 3))):
        for response in group:
            assert len(response.tokens) == len(response.logprobs)
            assert not set(response.tokens[:-1]) & {2, 3}
            assert response.finished == (response.tokens[-1] in (2, 3))
            assert response.finished or len(response.tokens) == 12


def test_draws_follow_the_softmax(lm):
    drawn = HFSampler(lm).sample([[5, 6]], [[sample_seed(1, g) for g in range(4000)]], Sampling(1.0, 1, (2,)))[0]
    counts = torch.bincount(torch.tensor([r.tokens[0] for r in drawn]), minlength=32).double()
    with torch.no_grad():
        expected = torch.softmax(lm(torch.tensor([[5, 6]], device=DEVICE)).logits[0, -1].cpu().double(), dim=-1) * 4000
    kept = expected > 5
    chi_square = ((counts - expected)[kept].square() / expected[kept]).sum()
    degrees = int(kept.sum()) - 1
    assert chi_square < degrees + 5 * math.sqrt(2 * degrees)


def test_truncation_keeps_and_renormalises_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]], device=DEVICE).log()
    kept = ({"top_k": 2}, {"top_p": 0.6}, {"min_p": 0.25})
    by_top_k, by_top_p, by_min_p = (sampling_logprobs(logits, Sampling(1.0, 1, (), **k)).exp().cpu() for k in kept)
    assert torch.allclose(by_top_k, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    assert torch.allclose(by_top_p, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    assert torch.allclose(by_min_p, torch.tensor([[0.5, 0.3, 0.15, 0.0]]) / 0.95)


def test_seeds_differ_by_every_label_and_stay_the_same_over_time():
    found = {sample_seed(s, a, b) for s in range(3) for a in ("rollout", "eval") for b in range(50)}
    assert len(found) == 300
    assert sample_seed(0, "rollout", 1, 0, 0) == 5172537475550556618
