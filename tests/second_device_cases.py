"""What rlx computes between a model's hidden states and a loss, as functions of the device, run by test_devices.py.

``python -m tests.second_device_cases`` computes every case on the CPU and on the second device and prints one JSON
object: an empty text, or the error, by case.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlx.numerics.advantages import ADVANTAGES
from rlx.numerics.batch import PolicyBatch
from rlx.numerics.collate import TokenSequence, collate, pad_rows
from rlx.numerics.kl import KL_FORMS
from rlx.numerics.output_layer import logprobs as output_layer
from rlx.numerics.output_layer import statistics
from rlx.numerics.output_layer.logprobs import Head, token_logprobs
from rlx.numerics.shaping import mismatch_weight, overlong_penalty
from rlx.numerics.terms import Counts, count, total
from rlx.registry import Method, get, names
from rlx.rl.objective import MiniBatch, PolicyObjective
from rlx.specs.algorithm import Algorithm, Mismatch
from rlx.unlearning.update import Row, UnlearnStep

Case = Callable[[torch.device], list[Tensor]]
V, D = 11, 6
LENGTHS_QG = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 3, dtype=torch.float64)
MODES, LEVELS = ("truncate", "mask"), ("token", "sequence")
SEQUENCES = [TokenSequence((5, 6), (7, 8, 2)), TokenSequence((5, 6), (9, 2)), TokenSequence((4,), (3, 1, 2))]
N = sum(len(sequence.response) for sequence in SEQUENCES)
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "palu": [
        {"top_k": 1},
        {"top_k": 4},
        {"top_k": 1, "target": "local_mean", "non_sensitive": "nll"},
        {"top_k": 4, "target": "local_mean", "first_n": 1, "kl_direction": "ref_theta"},
    ],
    "pdu": [{}, {"compat": True}],
    "undial": [{}, {"alpha": 1.0}],
}
"""Parameters with which an unlearning method is tried, if not only its defaults."""


def randoms(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def policy_loss(name: str, params: dict[str, Any], device: torch.device) -> list[Tensor]:
    """Loss, its gradient and statistics of a method on three sequences."""
    component = get("policy", name)
    hyper = component.hyper(**params)
    mask_bt = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.bool).to(device)
    old_bt = (-randoms(0, 3, 3).abs()).to(device) * mask_bt
    logprobs_bt = (-randoms(1, 3, 3).abs()).to(device).requires_grad_()
    adv_bt = randoms(2, 3, 3).to(device) * mask_bt
    batch = PolicyBatch(old_bt, adv_bt, mask_bt, entropy_bt=randoms(3, 3, 3).abs().to(device))
    found: dict[str, Tensor] = {}
    if component.whole_batch is not None:
        found = component.whole_batch(logprobs_bt.detach(), batch, hyper)
        batch = replace(batch, statistics=found)
    tokens = component.fn(logprobs_bt, batch, hyper)
    loss = (tokens.loss_bt * mask_bt).sum()
    (gradient_bt,) = torch.autograd.grad(loss, logprobs_bt)
    return [tokens.loss_bt.detach(), gradient_bt, *tokens.stats_bt.values(), *found.values()]


def objective(name: str, device: torch.device) -> list[Tensor]:
    """The engine's loss of a micro-batch whose samples are stored on the CPU, as the loop stores them."""
    tokens = collate(SEQUENCES, members=range(3)).to(device)
    component = get("policy", name)
    method = Method(component, component.hyper())
    stored = list(randoms(1, N).split([len(sequence.response) for sequence in SEQUENCES]))
    chosen = [row > 0 for row in stored]
    scalar = {"low": torch.tensor(0.7), "high": torch.tensor(1.3)}
    mini = MiniBatch(
        SEQUENCES, randoms(2, 3), stored, stored, stored, Counts(N, 3, 4), {"chosen": chosen, **scalar}
    )  # fmt: skip
    scored = (randoms(3, N).to(device).requires_grad_(), randoms(4, N).abs().to(device))
    losses = PolicyObjective(method, Algorithm(kl_coef=0.1, mismatch=Mismatch(mode="mask", low=0.5)), mini)(
        scored, tokens, [0, 1, 2]
    )
    loss = total(losses.terms, {"policy": mini.counts, "kl": mini.counts})
    (gradient_n,) = torch.autograd.grad(loss, scored[0])
    return [loss.detach(), gradient_n, *losses.sums.values(), *losses.peaks.values(), *losses.vectors.values()]


def unlearning_loss(name: str, params: dict[str, Any], device: torch.device) -> list[Tensor]:
    """An update's loss and gradients, with constants stored on the CPU, as the loop stores them."""
    component = get("unlearn", name)
    hyper = component.hyper.model_validate(params)
    needs = frozenset(
        need if "." in need else f"{side}.{need}" for need in component.needed(hyper) for side in ("forget", "retain")
    ) | (component.needed(hyper) & {"alternate"})  # fmt: skip
    rows = []
    for start, (side, sequence) in enumerate(zip(("forget", "alternate", "retain"), SEQUENCES, strict=True)):
        length = len(sequence.response)
        constants = {
            "ref_nll": torch.tensor([2.0]), "ref_topk": torch.arange(4).repeat(length, 1) + start,
            "ref_argmax": torch.arange(length), "ref_label_logit": randoms(5, length),
            "ref_layer": randoms(6, length, D), "ref_hidden": randoms(7, length, D),
        }  # fmt: skip
        sensitive = tuple(index < 2 and side == "forget" for index in range(length))
        rows.append(Row(side, sequence, (True,) * length, sensitive, constants))
    tokens = collate(SEQUENCES, members=range(3)).to(device)
    hidden_nd, weight_vd, layer_nd = (randoms(seed, *shape).to(device).requires_grad_() for seed, shape in (
        (1, (N, D)), (2, (V, D)), (3, (N, D)),
    ))  # fmt: skip
    step = UnlearnStep(Method(component, hyper), rows, needs)
    terms = step._terms(tokens, hidden_nd, Head(weight_vd), layer_nd)
    loss = total(terms, {term.name: count([term.mask]) for term in terms})
    gradients = torch.autograd.grad(loss, (hidden_nd, weight_vd, layer_nd), allow_unused=True)
    dry = step._terms(tokens, hidden_nd, Head(weight_vd), layer_nd, dry=True)
    return [loss.detach(), *(g for g in gradients if g is not None), *(term.mask for term in dry)]


def logprobs(head: dict[str, Any], kept: bool, device: torch.device) -> list[Tensor]:
    """Log-probs and entropies of tokens with their gradients, with logits stored or computed twice."""
    hidden_nd, weight_vd, bias_v = (randoms(s, *shape).to(device).requires_grad_() for s, shape in (
        (0, (N, D)), (1, (V, D)), (2, (V,)),
    ))  # fmt: skip
    stored, output_layer.KEPT_ELEMENTS = output_layer.KEPT_ELEMENTS, output_layer.KEPT_ELEMENTS if kept else 0
    targets_n = collate(SEQUENCES).to(device).targets_n
    values_n, entropy_n = token_logprobs(hidden_nd, targets_n, Head(weight_vd, bias_v, **head), 0.7)
    gradients = torch.autograd.grad(values_n.sum(), (hidden_nd, weight_vd, bias_v))
    output_layer.KEPT_ELEMENTS = stored
    return [values_n.detach(), entropy_n, *gradients]


def logit_statistics(frozen: bool, device: torch.device) -> list[Tensor]:
    """Every statistic of the logits with its gradient, under a trained and a frozen output layer."""
    hidden_nd = randoms(0, N, D).to(device).requires_grad_()
    head = Head(randoms(1, V, D).to(device).requires_grad_(not frozen), randoms(2, V).to(device))
    other_nd, ids_nk = randoms(3, N, D).to(device), torch.arange(2 * N).view(N, 2).remainder(V).to(device)
    values = [
        statistics.label_logprobs(hidden_nd, ids_nk[:, 0], head),
        statistics.row_logits(hidden_nd, ids_nk, head).sum(dim=1),
        statistics.mean_logit(hidden_nd, head),
        statistics.divergence(hidden_nd, head, other_nd, head, forward=True),
        statistics.divergence(hidden_nd, head, other_nd, head, forward=False),
        statistics.over_logits(lambda z, ids: z.gather(1, ids), hidden_nd, head, ids_nk).sum(dim=1),
    ]
    (gradient_nd,) = torch.autograd.grad(torch.stack(values).sum(), hidden_nd)
    return [*(value.detach() for value in values), gradient_nd]


def shaping(device: torch.device) -> list[Tensor]:
    """KL forms, the overlong penalty and the weight against the sampler."""
    a_bt, b_bt = randoms(0, 2, 3).to(device), randoms(1, 2, 3).to(device)
    lengths_b = torch.tensor([3, 9, 12]).to(device)
    values = [form(a_bt, b_bt) for form in KL_FORMS.values()]
    mask_bt = torch.ones_like(a_bt, dtype=torch.bool)
    corrections = [Mismatch(mode=mode, low=0.5, level=level) for mode in MODES for level in LEVELS]
    weights = [mismatch_weight(a_bt, b_bt, mask_bt, correction) for correction in corrections]
    return [*values, *weights, overlong_penalty(lengths_b, 10, 0.5)]


def collated(device: torch.device) -> list[Tensor]:
    """A micro-batch whose first row holds two responses, and rows padded on the device."""
    tokens = collate(SEQUENCES, members=range(3), shares=[2, 1]).to(device)
    assert tokens.layout is not None
    blocks = [part for block in tokens.layout.blocks for part in (block.queries_nq, block.keys_nk, block.sees_nqk)]
    layout = [tokens.layout.positions_bs, tokens.layout.sees_bss, tokens.layout.index_m, *blocks]
    read = tokens.input_ids_bs[tokens.rows_n, tokens.columns_n]
    padded = pad_rows([randoms(1, 2).to(device), randoms(2, 3).to(device)], 4)
    alone = collate(SEQUENCES).to(device).real_bs()
    return [*layout, read, tokens.padded(randoms(0, N).to(device)), padded, alone]


def cases() -> dict[str, Case]:
    """All cases by name."""
    found: dict[str, Case] = {"collate": collated, "shaping": shaping}
    for name in names("policy"):
        for preset, params in {"": {}, **get("policy", name).presets}.items():
            found[f"policy {name} {preset}".strip()] = lambda d, n=name, p=params: policy_loss(n, dict(p), d)
        found[f"objective {name}"] = lambda d, n=name: objective(n, d)
    for name in names("unlearn"):
        retained = [{"retain": kind} for kind in ("kl",) if "retain" in get("unlearn", name).hyper.model_fields]
        for params in [*VARIANTS.get(name, [{}]), *retained]:
            found[f"unlearn {name} {params or ''}".strip()] = lambda d, n=name, p=params: unlearning_loss(n, p, d)
    for name, advantage in ADVANTAGES.items():
        found[f"advantage {name}"] = lambda d, f=advantage: [f(randoms(0, 3, 4).double().to(d), LENGTHS_QG.to(d))]
    for label, head in {"linear": {}, "scaled": {"scale": 0.5}, "soft-capped": {"softcap": 3.0}}.items():
        for kept in (True, False):
            found[f"log-probs {label}, {'stored' if kept else 'computed twice'}"] = lambda d, h=head, k=kept: logprobs(
                h, k, d
            )
    for frozen in (True, False):
        found[f"statistics, {'frozen' if frozen else 'trained'} head"] = lambda d, f=frozen: logit_statistics(f, d)
    return found


def error_of(case: Case) -> str:
    """Empty if a case gives the CPU's values on the second device, all of them on that device."""
    from tests.second_device import CPU, DEVICE, SecondDevice

    expected = case(CPU)
    try:
        with SecondDevice():
            values = case(DEVICE)
            for index, (value, other) in enumerate(zip(values, expected, strict=True)):
                assert value.device == DEVICE, f"result {index} is on {value.device}"
                assert torch.equal(value.cpu(), other), f"result {index} differs from the CPU's"
    except Exception:
        return traceback.format_exc()
    return ""


MIXED: dict[str, Case] = {
    "a scalar": lambda device: [torch.ones(3).to(device) * torch.tensor(2.0)],
    "a tensor": lambda device: [torch.where(torch.ones(3).to(device) > 0, torch.ones(3), torch.zeros(3))],
    "an index": lambda device: [torch.ones(3)[torch.tensor([0]).to(device)]],
    "a result on the CPU": lambda device: [torch.ones(3)],
}
"""What must fail on the second device, and does not on the CPU."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    groups = {"cases": cases(), "mixed": MIXED}
    print(json.dumps({group: {name: error_of(case) for name, case in of.items()} for group, of in groups.items()}))
