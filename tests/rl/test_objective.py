"""The loss of a micro-batch: corrections that go with every policy loss, the entropy term, and the diagnostics."""

from __future__ import annotations

import pytest
import torch

from rlx.engine.batch import Batch
from rlx.numerics.collate import collate, padded_plan
from rlx.numerics.output_layer.response_reader import logprob_reader
from rlx.numerics.terms import Counts, total
from rlx.registry import Method, get, names
from rlx.rl.batch_statistics import with_batch_statistics
from rlx.rl.metrics import _policy_metrics
from rlx.rl.objective import MiniBatch, PolicyObjective
from rlx.specs.algorithm import Algorithm, Mismatch
from tests.devices import DEVICE
from tests.engine.test_step import SEQUENCES, TOKENS, engine, weights
from tests.engine.test_transfers import counted as counted

ADV = torch.tensor([1.0, -1.0, 2.0, -0.5, 0.0, 1.5])
LENGTHS = [len(sequence.response) for sequence in SEQUENCES]
COUNTS = Counts(TOKENS, len(SEQUENCES), 20)


def method(name, **params):
    component = get("policy", name)
    return Method(component, component.hyper(**params))


def random_logprobs(seed):
    generator = torch.Generator().manual_seed(seed)
    return [-3 * torch.rand(length, generator=generator) for length in LENGTHS]


def mini_batch(**changes):
    values = {
        "sequences": SEQUENCES, "adv_b": ADV, "sampler_logprobs": random_logprobs(0),
        "old_logprobs": random_logprobs(1), "ref_logprobs": None, "counts": COUNTS,
    }  # fmt: skip
    return MiniBatch(**{**values, **changes})


def losses_of(chosen, algorithm, mini):
    """The losses of all sequences in one micro-batch, with the log-probs they are differentiated by."""
    tokens = collate(SEQUENCES, members=range(len(SEQUENCES))).to(DEVICE)
    logprobs_n = torch.cat(random_logprobs(2)).to(DEVICE).requires_grad_()
    entropy_n = torch.linspace(0, 1, TOKENS, device=DEVICE).requires_grad_()
    made = PolicyObjective(chosen, algorithm, mini)((logprobs_n, entropy_n), tokens, list(range(len(SEQUENCES))))
    loss = total(made.terms, dict.fromkeys(("policy", "kl", "entropy"), mini.counts))
    slopes = torch.autograd.grad(loss, (logprobs_n, entropy_n), allow_unused=True)
    return made, loss, slopes[0], slopes[1]


@pytest.mark.parametrize("name", [name for name in names("policy") if get("policy", name).whole_batch is None])
def test_only_the_selected_tokens_get_gradient_and_they_keep_their_weight(name):
    chosen = method(name)
    reduction = get("policy", name).requires.get("algorithm.reduction", "token-mean")
    algorithm = Algorithm(reduction=reduction, top_entropy=0.3)
    selected = [torch.arange(length) % 3 == 0 for length in LENGTHS]
    _, _, every_n, _ = losses_of(chosen, algorithm, mini_batch())
    made, loss, some_n, _ = losses_of(chosen, algorithm, mini_batch(selected=selected))
    selected_n = torch.cat(selected).to(DEVICE)
    assert not some_n[~selected_n].any()
    assert torch.allclose(some_n[selected_n], every_n[selected_n], atol=1e-7)
    assert some_n.any()
    values_bt = made.terms[0].values.detach()
    tokens = collate(SEQUENCES, members=range(len(SEQUENCES))).to(DEVICE)
    assert not values_bt[tokens.mask_bt & ~tokens.padded(selected_n.float()).bool()].any()
    assert made.sums["selected"] == int(selected_n.sum())
    assert loss.isfinite()


@pytest.mark.parametrize("name", ["grpo", "dgpo", "gspo", "ipo", "dppo_tv"])
def test_a_correction_multiplies_the_gradient_of_every_token_by_its_weight(name):
    sampler, old = torch.cat(random_logprobs(0)).to(DEVICE), torch.cat(random_logprobs(1)).to(DEVICE)
    ratio_n = (old - sampler).exp()
    inside_n = (ratio_n >= 0.5) & (ratio_n <= 2)
    expected = {"truncate": ratio_n.clamp(0.5, 2), "mask": ratio_n * inside_n}
    _, _, plain_n, _ = losses_of(method(name), Algorithm(), mini_batch())
    for mode, weight_n in expected.items():
        algorithm = Algorithm(mismatch=Mismatch(mode=mode, low=0.5, high=2.0))
        made, _, found_n, _ = losses_of(method(name), algorithm, mini_batch())
        assert torch.allclose(found_n, plain_n * weight_n, atol=1e-7), mode
        masked = int((~inside_n).sum()) if mode == "mask" else 0
        assert int(made.sums["importance_masked"]) == masked
    assert 0 < int(inside_n.sum()) < TOKENS
    _, _, old_key_n, _ = losses_of(method(name), Algorithm(importance_cap=2.0), mini_batch())
    assert torch.allclose(old_key_n, plain_n * ratio_n.clamp(max=2))


def test_the_entropy_term_is_the_reduced_entropy_times_its_coefficient():
    _, without, _, none = losses_of(method("grpo"), Algorithm(), mini_batch())
    _, loss, _, slope_n = losses_of(method("grpo"), Algorithm(entropy_coef=0.1), mini_batch())
    assert none is None
    assert torch.allclose(slope_n, torch.full_like(slope_n, -0.1 / TOKENS))
    assert (loss - without).item() == pytest.approx(-0.1 * 0.5, abs=1e-6)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("trained", [True, False])
def test_the_entropy_and_its_gradient_are_those_of_the_softmax_at_the_temperature(softcap, trained):
    from rlx.numerics.output_layer.logprobs import Head, token_logprobs
    from rlx.numerics.output_layer.statistics import token_entropies

    generator = torch.Generator().manual_seed(0)
    weight_vd = torch.randn(11, 4, generator=generator, dtype=torch.float64, device="cpu").to(DEVICE)
    hidden_nd = torch.randn(5, 4, generator=generator, dtype=torch.float64).to(DEVICE).requires_grad_()
    head = Head(weight_vd.requires_grad_(trained), softcap=softcap)
    found_n = token_entropies(hidden_nd, head, 0.7)
    inputs = (hidden_nd, weight_vd) if trained else (hidden_nd,)
    found = torch.autograd.grad(found_n.sum(), inputs)
    exact_n = torch.distributions.Categorical(logits=head.logits(hidden_nd) / 0.7).entropy()
    for ours, theirs in zip(found, torch.autograd.grad(exact_n.sum(), inputs), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)
    assert torch.allclose(found_n, exact_n)
    assert torch.allclose(token_logprobs(hidden_nd, torch.arange(5, device=DEVICE), head, 0.7)[1], exact_n)


def updated(max_tokens, name, algorithm):
    """The engine and metrics of an update with everything the loop would do before it."""
    made = engine(max_tokens=max_tokens)
    read = logprob_reader(1.0)
    current = [torch.zeros(length) for length in LENGTHS]
    for members, (logprobs_n, _) in made.score(SEQUENCES, read):
        for member, row in zip(members, logprobs_n.split([LENGTHS[m] for m in members]), strict=True):
            current[member] = row.cpu()
    # Old log-probs around the current ones, so that ratios lie on all sides of the region.
    noise = [0.4 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in LENGTHS]
    old = [a + b for a, b in zip(current, noise, strict=True)]
    mini = mini_batch(old_logprobs=old, sampler_logprobs=current)
    mini = with_batch_statistics(mini, method(name), algorithm, made, read)
    counts = dict.fromkeys(("policy", "kl", "entropy"), COUNTS)
    train_read = logprob_reader(1.0, entropy_gradient=algorithm.entropy_coef > 0)
    batch = Batch(mini.sequences, train_read, PolicyObjective(method(name), algorithm, mini), counts)
    return made, batch


@pytest.mark.parametrize("name", ["dgpo", "luspo", "kl_cov"])
def test_corrections_and_diagnostics_are_the_same_for_one_batch_and_many_micro_batches(name):
    reduction = get("policy", name).requires.get("algorithm.reduction", "token-mean")
    mismatch = Mismatch(mode="mask", low=0.6, high=1.5)
    algorithm = Algorithm(reduction=reduction, top_entropy=0.5, entropy_coef=0.01, mismatch=mismatch)
    results = []
    for max_tokens in (10_000, 9):
        made, batch = updated(max_tokens, name, algorithm)
        results.append((weights(made), _policy_metrics([made.update(batch)]), weights(made)))
    (_, one, whole), (_, many, cut) = results
    assert one.keys() == many.keys() >= {"trust/weight_outside", "trust/ratio_p99", "trust/ess", "policy/selected"}
    assert many == pytest.approx(one, rel=1e-4)
    # All sequences begin with the same tokens, whose entropies are equal: the last of the selected ones has equals.
    assert 0.5 <= one["policy/selected"] < 0.7
    for key, value in whole.items():
        # 1 % of a step: Adam's first step divides every gradient by its own size, the smallest ones included.
        assert torch.allclose(value, cut[key], atol=1e-4), key


@pytest.mark.parametrize("max_tokens", [10_000, 9])
@pytest.mark.parametrize("name", ["dgpo", "vespo", "luspo"])
def test_an_update_with_all_diagnostics_reads_its_values_in_one_transfer(counted, name, max_tokens):
    reduction = get("policy", name).requires.get("algorithm.reduction", "token-mean")
    algorithm = Algorithm(reduction=reduction, top_entropy=0.5, mismatch=Mismatch(mode="mask"), entropy_coef=0.01)
    made, batch = updated(max_tokens, name, algorithm)
    made.update(batch)
    # transformers' own mask code reads one value per forward pass (find_packed_sequence_indices).
    assert counted(lambda: made.update(batch)) - len(padded_plan(SEQUENCES, max_tokens, False)) == 1
