"""Methods without official figures, PALU's two ways to its loss, and what holds for every method."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlx.methods.unlearning.palu import PALU, first_of_runs, flatness, palu
from rlx.methods.unlearning.pdu import PDU, dual_ascent
from rlx.methods.unlearning.rmu import RMU, direction, rmu
from rlx.methods.unlearning.tpo import TPO, tpo
from rlx.methods.unlearning.undial import UNDIAL, undial
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.terms import count, total
from rlx.numerics.unlearn_batch import LabelledBatch, Reference
from rlx.registry import get, names
from tests.devices import DEVICE

D, V = 5, 40


def numbers(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=DEVICE)


def flags(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.bool, device=DEVICE)


def ids(values: list[int]) -> Tensor:
    return torch.tensor(values, device=DEVICE)


RETAINED = LabelledBatch(
    mask_bt=flags([[True]]),
    labels_n=ids([1]),
    hidden_nd=numbers([[0.0, math.log(3.0)]]),
    head=Head(torch.eye(2, dtype=torch.float64, device=DEVICE)),
    layer_nd=numbers([[1.0, 4.0]]),
    reference=Reference(layer_nd=numbers([[1.0, 2.0]])),
)
"""One label of probability 3/4, whose layer moved by 2 in one of two dimensions."""


def means(terms: list) -> dict[str, float]:
    return {t.name: total([t], {t.name: count([t.mask])}).item() for t in terms}


def test_rmu_measures_squared_distances_to_its_direction_and_to_the_reference() -> None:
    u = direction(torch.zeros((1, 2), dtype=torch.float64, device=DEVICE), seed=0)
    assert abs(u.norm().item() - 1) < 1e-12 and (u >= 0).all()
    forget = LabelledBatch(
        mask_bt=flags([[True, True]]),
        labels_n=ids([0, 1]),
        hidden_nd=torch.zeros((2, 2), dtype=torch.float64, device=DEVICE),
        head=RETAINED.head,
        layer_nd=torch.stack([2.0 * u, 2.0 * u + numbers([3.0, 0.0])]),
    )
    result = means(rmu(forget, RETAINED, RMU(s=2.0, alpha=0.5)))
    assert result["forget"] == pytest.approx((0 + 9 / 2) / 2)
    assert result["retain"] == pytest.approx(0.5 * 4 / 2)


def test_undial_is_the_cross_entropy_to_the_reference_with_the_label_lowered() -> None:
    ref = numbers([[math.log(4.0), 0.0, 0.0]])
    forget = LabelledBatch(
        mask_bt=flags([[True]]),
        labels_n=ids([0]),
        hidden_nd=numbers([[math.log(2.0), 0.0, 0.0]]),
        head=Head(torch.eye(3, dtype=torch.float64, device=DEVICE)),
        reference=Reference(hidden_nd=ref, head=Head(torch.eye(3, dtype=torch.float64, device=DEVICE))),
    )
    # Lowered by log 4 the target is uniform; the model gives 1/2, 1/4, 1/4.
    result = means(undial(forget, RETAINED, UNDIAL(beta=math.log(4.0), alpha=2.0)))
    assert result["forget"] == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    assert result["retain"] == pytest.approx(2 * math.log(4 / 3))


def test_tpo_compares_mean_target_logits_and_keeps_the_other_tokens() -> None:
    hidden = numbers([[2.0, 0.0], [4.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    forget = LabelledBatch(
        mask_bt=flags([[True, True, True], [True, False, False]]),
        labels_n=ids([0, 0, 1, 1]),
        hidden_nd=hidden,
        head=Head(torch.eye(2, dtype=torch.float64, device=DEVICE)),
        sensitive_n=flags([True, True, False, False]),
        reference=Reference(label_logit_n=numbers([3.0, 7.0, 0.0, 0.0])),
    )
    result = means(tpo(forget, RETAINED, TPO(beta=0.5, alpha=1.0)))
    # The second sequence has no target: it has no forget term. Mean gap of the first is (1 + 3) / 2.
    assert result["forget"] == pytest.approx(4 * math.log(1 + math.exp(-1.0)))
    assert result["others"] == pytest.approx(math.log(2))
    assert result["retain"] == pytest.approx(math.log(4 / 3))


def test_the_dual_variable_rises_while_the_retain_loss_is_over_its_bound_and_never_falls_below_zero() -> None:
    hp = PDU(eta=2.0, alpha=1.0, warmup_updates=1)
    assert dual_ascent(hp, {"retain": 0.5}, updates=1).alpha == 1.0
    assert dual_ascent(hp, {"retain": 0.5}, updates=2).alpha == 2.0
    assert dual_ascent(hp, {"retain": -3.0}, updates=2).alpha == 0.0


def test_only_the_first_tokens_of_each_run_are_selected() -> None:
    sensitive = flags([[0, 1, 1, 1, 0, 1, 1], [1, 1, 0, 1, 0, 0, 0]])
    expected = flags([[0, 1, 1, 0, 0, 1, 1], [1, 1, 0, 1, 0, 0, 0]])
    assert torch.equal(first_of_runs(sensitive, 2), expected)
    assert torch.equal(first_of_runs(sensitive, 0), sensitive)


def plain(hidden: Tensor, head: Head, topk_nk: Tensor, hp: PALU) -> Tensor:
    """The formula as the paper writes it, over full logits."""
    logits = head.logits(hidden)
    picked = logits.gather(1, topk_nk)
    mean = (logits if hp.target == "global_mean" else picked).mean(dim=1)
    mean = mean if hp.target_grad == "through" else mean.detach()
    return (picked - mean[:, None]).square().mean(dim=1)


@given(
    top_k=st.sampled_from([1, 3, 10, V]),
    target=st.sampled_from(["global_mean", "local_mean"]),
    target_grad=st.sampled_from(["through", "detach"]),
    softcap=st.sampled_from([None, 3.0]),
    scale=st.sampled_from([1.0, 0.25]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_palu_without_the_vocabulary_equals_the_plain_formula(
    top_k: int, target: str, target_grad: str, softcap: float | None, scale: float, bias: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE)

    hp = PALU(top_k=top_k, target=target, target_grad=target_grad)
    topk = torch.stack([torch.randperm(V, generator=generator)[:top_k] for _ in range(3)]).to(DEVICE)
    chosen = flags([True, False, True, True])
    base = [normal(4, D), normal(V, D), normal(V)]
    grads = []
    for efficient in (True, False):
        hidden, weight, bias_v = (tensor.clone().requires_grad_() for tensor in base)
        head = Head(weight, bias_v if bias else None, softcap, scale)
        if efficient:
            answers = LabelledBatch(flags([[True] * 4]), ids([0] * 4), hidden, head)
            values = flatness(answers, topk, chosen, hp)
        else:
            values = plain(hidden[chosen], head, topk, hp)
        (values * numbers([1.0, -2.0, 0.5])).sum().backward()
        zero = torch.zeros_like(bias_v)
        grads.append([values.detach(), hidden.grad, weight.grad, bias_v.grad if bias_v.grad is not None else zero])
    for ours, theirs in zip(*grads, strict=True):
        assert (ours - theirs).abs().max().item() < 1e-9


def test_palu_never_builds_a_tensor_as_wide_as_the_vocabulary_for_few_rows() -> None:
    v, d = 50_000, 8
    hidden = torch.randn(4, d, device=DEVICE).requires_grad_()
    head = Head(torch.randn(v, d, device=DEVICE))
    answers = LabelledBatch(
        flags([[True] * 4]),
        ids([0] * 4),
        hidden,
        head,
        mean_row_d=head.weight_vd.mean(0),
    )
    topk = torch.randint(0, v, (4, 20), device=DEVICE)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        sizes: list[int] = []
        flatness(answers, topk, flags([True] * 4), PALU(top_k=20)).sum().backward()
    # The head itself may be kept for the gather; nothing else comes near 4 * v.
    assert max(size for size in sizes if size != head.weight_vd.numel()) < v


def test_a_method_that_reads_what_it_did_not_declare_is_told_so() -> None:
    with pytest.raises(ValueError, match="add it to needs"):
        palu(RETAINED, RETAINED, PALU())


@pytest.mark.parametrize("name", names("unlearn"))
def test_one_batch_equals_its_micro_batches(name: str) -> None:
    method = get("unlearn", name)
    hp = method.hyper.model_validate({"top_k": 4} if name == "palu" else {})
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn((V, D), generator=generator, dtype=torch.float64).to(DEVICE).requires_grad_()
    mask = flags([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    lengths = [3, 4, 1]
    base = {
        key: torch.randn((8, D), generator=generator, dtype=torch.float64).to(DEVICE)
        for key in ("hidden", "ref", "other", "layer", "ref_layer", "kept")
    }
    labels = torch.randint(0, V, (8,), generator=generator).to(DEVICE)
    sensitive = flags([0, 1, 1, 0, 1, 1, 0, 1])
    topk = base["ref"].matmul(weight.detach().T).topk(4, dim=1).indices

    def sides(rows: list[int]) -> tuple[LabelledBatch, LabelledBatch]:
        tokens = torch.cat([torch.arange(sum(lengths[:r]), sum(lengths[: r + 1])) for r in rows])
        head = Head(weight)

        def side(hidden: str, alternate: LabelledBatch | None = None) -> LabelledBatch:
            reference = Reference(
                nll_b=numbers([3.0, 2.0, 1.0])[rows],
                topk_nk=topk[tokens],
                argmax_n=topk[tokens, 0],
                label_logit_n=base["ref"][tokens, 0],
                layer_nd=base["ref_layer"][tokens],
                hidden_nd=base["ref"][tokens],
                head=Head(weight.detach()),
            )
            return LabelledBatch(
                mask[rows], labels[tokens], base[hidden][tokens] @ mix, head,
                sensitive_n=sensitive[tokens], layer_nd=base["layer"][tokens] @ mix, reference=reference,
                alternate=alternate,
            )  # fmt: skip

        return side("hidden", side("other")), side("kept")

    mix = torch.eye(D, dtype=torch.float64, device=DEVICE).requires_grad_()
    whole = method.fn(*sides([0, 1, 2]), hp)
    counts = {term.name: count([term.mask]) for term in whole}
    expected = total(whole, counts)
    expected_grads = torch.autograd.grad(expected, [weight, mix], allow_unused=True)
    parts = [total(method.fn(*sides(rows), hp), counts) for rows in ([2, 0], [1])]
    grads = torch.autograd.grad(sum(parts), [weight, mix], allow_unused=True)
    assert sum(parts).item() == pytest.approx(expected.item(), abs=1e-12)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours - theirs).abs().max().item() < 1e-10
