"""The engine: one batch = k micro-batches, skipped updates, schedules, checkpoints."""

from __future__ import annotations

import math
import resource

import pytest
import torch

from rlx.engine.attention import SHARED_PROMPTS
from rlx.engine.batch import Batch, Losses
from rlx.engine.checkpoint import load_checkpoint, load_weights, save_checkpoint
from rlx.engine.lora import add_lora, causal_lm, without_adapters
from rlx.engine.model import can_share_prompts
from rlx.engine.optim import learning_rate
from rlx.engine.row_layout import choose_row_layout
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.numerics.collate import TokenSequence, prompt_rows
from rlx.numerics.output_layer.logprobs import token_logprobs
from rlx.numerics.terms import Counts, Term
from rlx.runs.checkpoint_files import Position, newest_step, remove_leftovers, step_folders
from rlx.specs.train import Lora, Model, Optim
from tests.devices import DEVICE
from tests.tiny_models import small_llama

SEQUENCES = [TokenSequence((3, 4, 5), tuple(range(6, 6 + n))) for n in (1, 2, 3, 5, 8, 13)]
TOKENS = sum(len(s.response) for s in SEQUENCES)


def tiny_lm():
    return small_llama()


def engine(max_tokens=10_000, optim=None, lora=None):
    model = Model(lora=lora, precision="float32")  # on a GPU "auto" is bfloat16
    return Engine(add_lora(tiny_lm(), model), model, optim or Optim(lr=1e-2), 100, max_tokens)


def read(hidden_nd, head, batch):
    return token_logprobs(hidden_nd, batch.targets_n, head)


def likelihood(factor=1.0, reduction="token-mean"):
    def objective(scored, tokens, rows):
        logprobs_bt = tokens.padded(scored[0])
        term = Term("nll", -factor * logprobs_bt, tokens.mask_bt, 1.0, reduction)
        return Losses(
            [term],
            sums={"tokens": tokens.mask_bt.sum()},
            peaks={"rows": term.mask.new_tensor(len(rows), dtype=torch.long)},
        )

    return objective


def batch(factor=1.0, reduction="token-mean"):
    return Batch(SEQUENCES, read, likelihood(factor, reduction), {"nll": Counts(TOKENS, len(SEQUENCES), 20)})


def weights(made):
    return {name: p.detach().clone() for name, p in made.raw.named_parameters()}


@pytest.mark.parametrize(
    "reduction", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]
)
def test_one_batch_and_many_micro_batches_take_the_same_step(reduction):
    whole, cut = engine(max_tokens=10_000), engine(max_tokens=9)
    for _ in range(3):
        one, many = whole.update(batch(reduction=reduction)), cut.update(batch(reduction=reduction))
        assert many.loss == pytest.approx(one.loss, rel=1e-5)
        assert many.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
        assert one.sums["tokens"] == many.sums["tokens"] == TOKENS
        assert many.peaks["rows"] < one.peaks["rows"] <= len(SEQUENCES)
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(cut)[name], atol=1e-5), name


GROUPS = [
    TokenSequence(prompt, tuple(range(20 - n, 20)))
    for prompt, lengths in (((3, 4, 5, 6, 7, 8, 9, 10), (1, 4, 2, 3)), ((11, 12, 13, 14, 15, 16), (2, 5, 0, 1)))
    for n in lengths
]


@pytest.mark.parametrize("max_tokens", [10_000, 16])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
@pytest.mark.parametrize("kind", ["sdpa", SHARED_PROMPTS])
def test_responses_that_share_their_prompts_row_take_the_same_step_with_fewer_tokens(max_tokens, lora, kind):
    seen, tokens = {}, sum(len(s.response) for s in GROUPS)
    results = []
    for share in (False, True):
        made = engine(max_tokens=max_tokens, lora=lora)
        made.share_prompts = share
        if share:
            made.lm.set_attn_implementation(kind)
        widths = seen.setdefault(share, [])
        made.lm.get_decoder().register_forward_pre_hook(
            lambda _, __, kept, widths=widths: widths.append(kept["input_ids"].numel()), with_kwargs=True
        )
        scored = {m: values for places, (lp, _) in made.score(GROUPS, read) for m, values in by_member(places, lp)}
        updates = [
            made.update(Batch(GROUPS, read, likelihood(), {"nll": Counts(tokens, len(GROUPS), 20)})) for _ in range(2)
        ]
        results.append((made, scored, updates))
    (alone, apart, one), (shared, together, two) = results
    assert sum(seen[True]) < sum(seen[False])
    assert set(apart) == set(together) == set(range(len(GROUPS)))
    for member, values in apart.items():
        assert torch.allclose(values, together[member], atol=1e-5), member
    for a, b in zip(one, two, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-5) and b.grad_norm == pytest.approx(a.grad_norm, rel=1e-4)
        assert a.sums == b.sums
    for name, value in weights(alone).items():
        assert torch.allclose(value, weights(shared)[name], atol=1e-5), name


def by_member(places, values_n):
    """A micro-batch's values by sequence."""
    return list(zip(places, torch.split(values_n, [len(GROUPS[i].response) for i in places]), strict=True))


def test_prompts_are_shared_where_that_saves_enough_tokens_and_the_model_can():
    long = [TokenSequence(tuple(range(1, 9)), (9, 9)) for _ in range(4)]
    assert prompt_rows(long, 100) == [[0, 1, 2, 3]]
    assert prompt_rows(long, 10) == [[0, 1], [2, 3]]
    few = [TokenSequence((1,), tuple(range(2, 10))) for _ in range(4)]  # 29 tokens instead of 32
    assert prompt_rows(few, 100) == [[0], [1], [2], [3]]
    assert can_share_prompts(tiny_lm())
    blind = tiny_lm()
    decoder = blind.get_decoder()
    forward = decoder.forward
    decoder.forward = lambda input_ids, use_cache, **_: forward(input_ids=input_ids, use_cache=use_cache)
    assert not can_share_prompts(blind)


@pytest.mark.skipif(DEVICE != "cpu", reason="only a CPU shares prompts in padded rows")
@pytest.mark.parametrize("coefficient", [0.0, 0.01])
def test_rows_are_not_shared_where_the_routers_loss_counts_the_tokens_of_whole_rows(coefficient):
    model = Model(precision="float32", router_aux_coef=coefficient)
    made = Engine(tiny_lm(), model, Optim(), 100, 1000)
    assert choose_row_layout(made) == ""
    assert made.share_prompts == (coefficient == 0)


def test_a_step_lowers_the_loss_it_steps_on():
    made = engine()
    losses = [made.update(batch()).loss for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


def test_a_non_finite_update_changes_nothing_and_the_fifth_in_a_row_ends_the_run():
    made = engine()
    made.update(batch())
    before = weights(made)
    for _ in range(4):
        assert not made.update(batch(factor=math.nan)).applied
    assert all(torch.equal(value, before[name]) for name, value in weights(made).items())
    assert made.update(batch()).applied
    for _ in range(4):
        made.update(batch(factor=math.inf))
    with pytest.raises(UserError, match="5 optimiser updates in a row"):
        made.update(batch(factor=math.nan))


def test_no_sequence_anywhere_is_a_zero_gradient_not_a_crash():
    made = engine()
    nothing = Batch([], read, likelihood(), {"nll": Counts(TOKENS, len(SEQUENCES), 20)})
    update = made.update(nothing)
    assert (update.loss, update.grad_norm, update.applied) == (0.0, 0.0, True)


def test_the_learning_rate_warms_up_and_decays_as_its_formula_says():
    assert [learning_rate(Optim(lr=1.0, warmup_updates=4), u, 10) for u in (0, 1, 3, 4, 9)] == [0.25, 0.5, 1, 1, 1]
    linear = Optim(lr=1.0, warmup_updates=2, schedule="linear")
    assert [learning_rate(linear, u, 10) for u in (2, 6, 10)] == [1.0, 0.5, 0.0]
    cosine = Optim(lr=1.0, schedule="cosine")
    assert [round(learning_rate(cosine, u, 8), 6) for u in (0, 4, 8)] == [1.0, 0.5, 0.0]


def test_resume_from_a_checkpoint_takes_the_very_steps_that_an_uninterrupted_run_takes(tmp_path):
    straight = engine(optim=Optim(lr=1e-2, weight_decay=0.1, schedule="linear"))
    broken = engine(optim=Optim(lr=1e-2, weight_decay=0.1, schedule="linear"))
    for _ in range(3):
        straight.update(batch())
        broken.update(batch())
    save_checkpoint(tmp_path / "step_000003", broken, Position(3, broken.updates, 0, 77), keep=2)
    expected_draw = torch.rand(3)
    resumed = engine(optim=Optim(lr=1e-2, weight_decay=0.1, schedule="linear"))
    position = load_checkpoint(tmp_path / "step_000003", resumed)
    assert position == Position(3, 3, 0, 77)
    assert torch.equal(torch.rand(3), expected_draw)
    for _ in range(3):
        one, other = straight.update(batch()), resumed.update(batch())
        assert (one.loss, one.grad_norm, one.lr) == (other.loss, other.grad_norm, other.lr)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(straight).items())


def test_the_last_checkpoints_and_the_best_are_kept_and_leftovers_of_a_kill_are_swept(tmp_path):
    made = engine()
    for step in range(1, 7):
        save_checkpoint(tmp_path / f"step_{step:06d}", made, Position(step, step, 0, 0, best_step=2), keep=2)
    (tmp_path / ".tmp-step_000007").mkdir()
    (tmp_path / "step_000009").mkdir()
    remove_leftovers(tmp_path)
    steps = ("step_000002", "step_000005", "step_000006", "step_000009")
    assert [path.name for path in step_folders(tmp_path)] == list(steps)
    assert {path.name for path in tmp_path.iterdir()} == {*steps, "newest.json"}
    assert newest_step(tmp_path) == 6


def test_a_broken_checkpoint_is_named_in_one_sentence(tmp_path):
    made = engine()
    save_checkpoint(tmp_path / "step_000001", made, Position(1, 1, 0, 0), keep=2)
    (tmp_path / "step_000001" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(
        UserError, match=r"step_000001 cannot be read.*model.safetensors has 5 bytes.*continue from an earlier one"
    ):
        load_checkpoint(tmp_path / "step_000001", made)


def test_a_full_disk_while_tensors_are_written_is_told_in_one_sentence_and_leaves_what_stood(tmp_path):
    made = engine()
    save_checkpoint(tmp_path / "step_000001", made, Position(1, 1, 0, 0), keep=2)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))  # no file may grow beyond: safetensors' own error
    try:
        with pytest.raises(UserError, match=r"checkpoint .*step_000002 cannot be written") as caught:
            save_checkpoint(tmp_path / "step_000002", made, Position(2, 2, 0, 0), keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in str(caught.value) and "run the same command again" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest.json", "step_000001"]
    load_checkpoint(tmp_path / "step_000001", made)


def test_adapters_train_alone_and_switch_off_to_the_initial_model(tmp_path):
    made = engine(lora=Lora(rank=4))
    initial = tiny_lm().to(DEVICE)
    ids = torch.tensor([[3, 4, 5, 6]], device=DEVICE)
    for _ in range(3):
        made.update(batch())
    frozen = {name: value for name, value in made.raw.named_parameters() if not value.requires_grad}
    reference = dict(initial.named_parameters())
    for name, value in frozen.items():
        plain = name.replace("base_model.model.", "").replace(".base_layer", "")
        assert torch.equal(value, reference[plain]), name
    with torch.no_grad():
        assert not torch.allclose(causal_lm(made.raw)(ids).logits, initial(ids).logits, atol=1e-4)
        with without_adapters(made.raw):
            assert torch.equal(causal_lm(made.raw)(ids).logits, initial(ids).logits)
    save_checkpoint(tmp_path / "step_000003", made, Position(3, 3, 0, 0), keep=1)
    other = engine(lora=Lora(rank=4))
    load_weights(tmp_path / "step_000003", other)
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(made).items())


def test_the_optimizer_step_counter_is_restored_on_its_parameters_device(tmp_path):
    """Fused AdamW stops on CUDA when the counter stays on the CPU; the meta device takes CUDA's place here."""
    saved = engine()
    saved.update(batch())
    save_checkpoint(tmp_path / "step_000001", saved, Position(1, 1, 0, 0), keep=2)
    elsewhere = engine()
    elsewhere.raw.to("meta").tie_weights()
    load_checkpoint(tmp_path / "step_000001", elsewhere)
    counters = [(parameter, state["step"]) for parameter, state in elsewhere.optimizer.state.items()]
    assert counters and all(step.device == parameter.device for parameter, step in counters)
    assert {parameter.device.type for parameter, _ in counters} == {"meta"}
