"""Frozen weights are stored in the compute type where that changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate.state import AcceleratorState

from rlx.engine.batch import Batch, Losses
from rlx.engine.device import narrow_frozen_weights
from rlx.engine.load import load_frozen, load_trainable
from rlx.engine.lora import causal_lm, merged_weights
from rlx.engine.model import ReadableModel
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenSequence
from rlx.numerics.output_layer.response_reader import logprob_reader
from rlx.numerics.terms import Counts, Term
from rlx.specs.resolve_train import EMBEDDED_MODEL
from rlx.specs.train import Lora, Model, Optim

CPU = torch.device("cpu")
SEQUENCES = [TokenSequence((5, 6, 7), (8, 9, 2)), TokenSequence((5, 6, 7, 8, 9), (4, 3, 2))]


def published_in_bfloat16(folder, target):
    lm = load_frozen(str(folder), Model(), CPU)
    lm.to(torch.bfloat16).save_pretrained(target)
    return str(target)


def objective(scored, tokens, members):
    return Losses([Term("policy", -tokens.padded(scored[0]), tokens.mask_bt)])


def updated(model, spec):
    engine = Engine(model, spec, Optim(lr=1e-3), total_updates=2, max_tokens=1000)
    for _ in range(2):
        update = engine.update(Batch(SEQUENCES, logprob_reader(1.0), objective, {"policy": Counts(6, 2)}))
    return update.loss, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """accelerate stores the first precision of a process, and other tests use float32."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def folder(tmp_path):
    return published_in_bfloat16(EMBEDDED_MODEL, tmp_path / "model")


def test_adapters_over_a_narrow_base_take_the_same_steps_bit_by_bit(folder, monkeypatch):
    spec = Model(path=folder, precision="bfloat16", lora=Lora(rank=4))
    narrow = load_trainable(folder, spec, CPU)
    torch.manual_seed(0)
    for name, parameter in narrow.named_parameters():
        if "lora_A" in name:
            parameter.data = torch.randn_like(parameter) * 0.1
    wide = copy.deepcopy(narrow).float()
    kinds = {name: p.dtype for name, p in narrow.named_parameters()}
    assert {kind for name, kind in kinds.items() if "proj.base_layer" in name} == {torch.bfloat16}
    assert {kind for name, kind in kinds.items() if "lora" in name or "embed" in name} == {torch.float32}
    loss, weights = updated(narrow, spec)
    wide_loss, wide_weights = updated(wide, spec)
    assert loss == wide_loss
    assert all(torch.equal(weights[name], wide_weights[name]) for name in wide_weights)
    for (name, value), (_, other) in zip(
        merged_weights(causal_lm(narrow)), merged_weights(causal_lm(wide)), strict=True
    ):
        assert torch.equal(value.float(), other), name


def test_a_frozen_reference_gives_the_same_log_probs_bit_by_bit(folder):
    spec = Model(path=folder, precision="bfloat16")
    narrow = load_frozen(folder, spec, CPU)
    wide = copy.deepcopy(narrow).float()
    assert {p.dtype for name, p in narrow.named_parameters() if "proj" in name} == {torch.bfloat16}
    found = []
    for lm in (narrow, wide):
        engine = Engine(load_trainable(folder, spec, CPU), spec, Optim(), 1, 1000)
        found.append(torch.cat([out[0] for _, out in engine.score(SEQUENCES, logprob_reader(1.0), ReadableModel(lm))]))
    assert torch.equal(found[0], found[1])


def test_values_that_bfloat16_would_round_and_weights_in_training_stay_float32():
    lm = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    lm[1].requires_grad_(False)
    lm[2].requires_grad_(False)
    lm[2].weight.data.fill_(0.5)  # the others' random values are not bfloat16 numbers
    narrow_frozen_weights(lm, "float32")
    assert {p.dtype for p in lm.parameters()} == {torch.float32}
    narrow_frozen_weights(lm, "bfloat16")
    assert lm[0].weight.dtype == lm[1].weight.dtype == torch.float32 and lm[2].weight.dtype == torch.bfloat16
