"""Unlearning updates over packed rows equal those over padded rows."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlx.engine.attention import PACKED, use_attention
from rlx.engine.hidden_state_hook import HiddenStateHook
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenSequence
from rlx.numerics.output_layer.logprobs import Head
from rlx.registry import Method, get
from rlx.specs.train import Model, Optim
from rlx.unlearning.reference import reference_constants
from rlx.unlearning.update import Row, UnlearnStep, plan_of, update_once

SIDES = ("forget", "forget", "alternate", "alternate", "retain", "retain")


def rows(engine, needs, hook):
    """Two sequences of each side with the reference's constants."""
    made = []
    for index, side in enumerate(SIDES):
        sequence = TokenSequence((3, 4, 5 + index % 2), tuple(range(8 - index, 20)))
        flags = tuple(n % 2 == 0 for n in sequence.response)
        made.append(Row(side, sequence, (True,) * len(flags), flags, {}))
    names = {need.split(".")[1] for need in needs if ".ref_" in need}
    constants = reference_constants(engine, made, names, 4, hook)
    return [Row(r.side, r.sequence, r.labelled, r.sensitive, c) for r, c in zip(made, constants, strict=True)]


def updates(name, packs, micro):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    lm = LlamaForCausalLM(config).eval()
    use_attention(lm, PACKED)
    engine = Engine(lm, Model(), Optim(lr=1e-3), 10, 60)
    engine.pack_rows = packs
    component = get("unlearn", name)
    hook = HiddenStateHook(lm, 0)
    sides = rows(engine, component.needs, hook)
    method, head = Method(component, component.hyper()), Head(lm.lm_head.weight.detach().clone())
    step = UnlearnStep(method, sides, frozenset(component.needs), head, hook=hook, micro_total=2 * micro)
    plan = plan_of(sides, any("alternate" in need for need in component.needs), micro)
    outcomes = [update_once(engine, step, plan) for _ in range(2)]
    return outcomes, {name: p.detach() for name, p in lm.named_parameters()}


@pytest.mark.parametrize("micro", [0, 1])
@pytest.mark.parametrize("name", ["rmu", "dpo", "tpo", "undial"])
def test_an_update_over_packed_rows_equals_one_over_padded_rows(name, micro):
    (padded, weights), (packed, others) = updates(name, False, micro), updates(name, True, micro)
    for one, other in zip(padded, packed, strict=True):
        assert other.update.loss == pytest.approx(one.update.loss, rel=1e-4, abs=1e-6)
        assert other.update.grad_norm == pytest.approx(one.update.grad_norm, rel=1e-3)
        assert other.means == pytest.approx(one.means, rel=1e-4)
    for parameter, value in weights.items():
        assert torch.allclose(value, others[parameter], atol=1e-4), parameter
