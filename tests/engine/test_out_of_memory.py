"""Updates and scores that do not fit into memory: repeated in smaller micro-batches, or refused in one sentence."""

import os
import subprocess
import sys

import pytest
import torch

from rlx.engine.batch import Batch, Losses
from rlx.engine.out_of_memory import RandomState, check_repeatable, explained, is_out_of_memory, lower_budget
from rlx.errors import UserError
from rlx.numerics.collate import TokenSequence, padded_plan
from rlx.numerics.terms import Counts, Term
from rlx.specs.train import Lora
from tests.engine.test_step import engine, likelihood, read, weights

SEQUENCES = [TokenSequence((3, 4, 5), (6 + i, 9 + i, 8 + 2 * i)) for i in range(8)]
"""Eight of five input tokens each."""
COUNTS = {"nll": Counts(24, 8, 20)}
ON_A_CPU = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"


def batch(objective=None, plan=None):
    return Batch(SEQUENCES, read, objective or likelihood(), COUNTS, plan)


def limited(made, tokens, error=torch.OutOfMemoryError):
    """The engine with memory for micro-batches of at most so many tokens, and the sizes that its model was given."""
    sizes = []

    def check(module, inputs, options):
        sizes.append(options["input_ids"].numel())
        if sizes[-1] > tokens:
            raise error(ON_A_CPU if error is RuntimeError else "CUDA out of memory. Tried to allocate 20.00 MiB")

    made.lm.get_decoder().register_forward_pre_hook(check, with_kwargs=True)
    return made, sizes


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("lora", [None, Lora(rank=2, dropout=0.5)])
def test_an_update_that_does_not_fit_is_the_update_with_a_smaller_budget(error, lora, capsys):
    torch.manual_seed(1)
    made, sizes = limited(engine(max_tokens=160, lora=lora), 25, error)
    torch.manual_seed(1)
    smaller = engine(max_tokens=20, lora=lora)
    torch.manual_seed(2)
    first = made.update(batch())
    repeated = len(sizes)
    second = made.update(batch())
    torch.manual_seed(2)
    assert (first, second) == (smaller.update(batch()), smaller.update(batch()))
    assert all(torch.equal(value, weights(made)[name]) for name, value in weights(smaller).items())
    assert made.max_tokens == 20
    assert len(sizes) - repeated == len(padded_plan(SEQUENCES, 20, False)), "the second update fits at once"
    assert capsys.readouterr().err.count("out of memory with micro-batches of 160 tokens") == 1


def test_memory_that_runs_out_in_the_backward_pass_leaves_no_part_of_a_gradient():
    def failing(scored, tokens, rows):
        losses = likelihood()(scored, tokens, rows)
        if len(rows) > 3:
            values = losses.terms[0].values
            values.register_hook(lambda gradient: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")))
        return losses

    made, smaller = engine(max_tokens=64), engine(max_tokens=16)
    result = made.update(batch(failing))
    assert made.max_tokens == 16
    assert result == smaller.update(batch())
    assert all(torch.equal(value, weights(made)[name]) for name, value in weights(smaller).items())


def test_a_late_micro_batch_that_does_not_fit_takes_the_earlier_ones_back():
    made, smaller = engine(max_tokens=32), engine(max_tokens=8)
    calls = []

    def failing(scored, tokens, rows):
        calls.append(rows)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return likelihood()(scored, tokens, rows)

    result = made.update(batch(failing))
    assert [len(rows) for rows in calls[:2]] == [6, 2]
    assert result == smaller.update(batch()) and made.max_tokens == 8
    assert all(torch.equal(value, weights(made)[name]) for name, value in weights(smaller).items())


def test_a_score_that_does_not_fit_is_the_score_with_a_smaller_budget():
    made, _ = limited(engine(max_tokens=160), 25)
    scores, expected = made.score(SEQUENCES, read), engine(max_tokens=20).score(SEQUENCES, read)
    assert [members for members, _ in scores] == [members for members, _ in expected]
    for (_, values), (_, others) in zip(scores, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(values, others, strict=True))
    assert made.max_tokens == 20


def test_a_sequence_that_does_not_fit_alone_ends_the_run_with_the_ways_out():
    made, _ = limited(engine(max_tokens=160), 4)
    before = weights(made)
    with pytest.raises(UserError, match="single sequence") as caught:
        made.update(batch())
    for key in ("model.gradient_checkpointing=true", "model.lora", "rollout.max_new_tokens", "batch.max_tokens"):
        assert key in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in weights(made).items())
    assert all(parameter.grad is None for parameter in made.parameters)
    with pytest.raises(UserError, match="single sequence"):
        limited(engine(max_tokens=160), 4)[0].score(SEQUENCES, read)


def test_a_callers_plan_is_made_again_for_the_smaller_budget():
    everything = list(range(8))
    plans = {100: [everything], 50: [everything], 25: [[0, 1, 2, 3, 4], [5, 6], [7]]}
    made, _ = limited(engine(max_tokens=100), 30)
    result = made.update(batch(plan=plans.__getitem__))
    expected = engine(max_tokens=25).update(batch(plan=plans.__getitem__))
    assert made.max_tokens == 25 and result == expected


def test_a_plan_that_no_budget_changes_is_refused():
    made, _ = limited(engine(max_tokens=100), 30)
    with pytest.raises(UserError, match="8 sequences that the method does not allow to divide.*method.microbatch"):
        made.update(batch(plan=lambda budget: [list(range(8))]))


def test_another_error_is_not_taken_for_memory():
    def failing(scored, tokens, rows):
        raise RuntimeError("the size of tensor a (3) must match")

    made = engine()
    with pytest.raises(RuntimeError, match="must match"):
        made.update(batch(failing))


def test_the_budget_is_halved_until_it_divides_the_micro_batch():
    sequences = [TokenSequence((1, 2), (3, 4, 5))] * 8  # 4 tokens of input each
    failed = padded_plan(sequences, 1000, False)[0]
    assert len(failed) == 8
    assert lower_budget(1000, failed, lambda budget: padded_plan(sequences, budget, False)) == 31


def test_with_several_processes_the_one_that_failed_says_so_and_ends(capsys):
    with pytest.raises(UserError, match="process 3 ran out of memory in an update"):
        check_repeatable(torch.OutOfMemoryError("CUDA out of memory"), 3, "an update")
    assert "process 3 ran out of memory" in capsys.readouterr().err, "only rank 0 prints the error it ends with"
    check_repeatable(torch.OutOfMemoryError("CUDA out of memory"), None, "an update")


def test_memory_that_runs_out_in_the_optimisers_step_is_explained():
    made = engine()

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    made.optimizer.register_step_pre_hook(fail)
    with pytest.raises(UserError, match="the optimiser's step.*model.lora"):
        made.update(batch())
    with pytest.raises(RuntimeError, match="other"), explained(0, "work"):
        raise RuntimeError("other")


def test_torch_reports_memory_that_runs_out_with_the_messages_that_are_looked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_random_numbers_are_drawn_again():
    state = RandomState()
    drawn = torch.rand(3)
    state.restore()
    assert torch.equal(torch.rand(3), drawn)


def test_a_fully_masked_term_still_fits():
    made, _ = limited(engine(max_tokens=160), 25)

    def nothing(scored, tokens, rows):
        values = tokens.padded(scored[0])
        return Losses([Term("nll", values, torch.zeros_like(tokens.mask_bt))])

    update = made.update(batch(nothing))
    assert update.loss == 0.0 and made.max_tokens == 20


LOSS_WITHOUT_MEMORY = """
import os, torch
from rlx.registry import Hyper, register

class Full(Hyper):
    pass

@register("policy", paper="mine")
def full(logprobs_bt, batch, hp):
    if os.environ.get("RANK") == "1":
        raise torch.OutOfMemoryError("CUDA out of memory")
    return -batch.adv_bt * logprobs_bt, {}
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "fsdp2"])
def test_two_processes_of_which_one_runs_out_of_memory_end_with_one_sentence(mode, tmp_path):
    (tmp_path / "full.py").write_text(LOSS_WITHOUT_MEMORY, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rlx.cli", "train", "--algo", f"{tmp_path / 'full.py'}:full", "--processes", "2"),
            *("--runs-dir", str(tmp_path / "runs"), "--steps", "1", "--set", f"sharding.mode={mode}"),
            *("--set", "evaluation.every=0", "--set", "tracker.mlflow=false", "--set", "batch.prompts=8"),
        ],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    output = done.stderr.replace("\n", " ")
    assert done.returncode == 1, output
    assert output.count("process 1 ran out of memory in an update") == 1
    assert "sharding.offload=true continues this run" in output and "Traceback" not in output
