"""Figures read off the logits are the same whether the logits are computed twice or take their gradient along."""

import pytest
import torch
from torch import Tensor

from rlx.numerics.output_layer import statistics as readout
from rlx.numerics.output_layer.logprobs import Head
from tests.devices import DEVICE

V, D, N = 23, 5, 7


def values(name: str, hidden_nd: Tensor, head: Head) -> Tensor:
    other_nd = torch.linspace(-1, 1, N * D, dtype=torch.float64, device=DEVICE).reshape(N, D)
    if name == "label_logprobs":
        return readout.label_logprobs(hidden_nd, torch.arange(N, device=DEVICE), head)
    if name == "top":
        ids_n2 = torch.arange(2 * N, device=DEVICE).view(N, 2)
        return readout.over_logits(lambda z, ids: z.gather(1, ids), hidden_nd, head, ids_n2)
    return readout.divergence(hidden_nd, head, other_nd, head, forward=name == "forward")


@pytest.mark.parametrize("name", ["label_logprobs", "forward", "reverse", "top"])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_frozen_head_gives_the_values_and_gradients_of_a_trained_one(monkeypatch, name, softcap):
    generator = torch.Generator().manual_seed(0)
    weight_vd = torch.randn((V, D), generator=generator, dtype=torch.float64).to(DEVICE)
    hidden_nd = torch.randn((N, D), generator=generator, dtype=torch.float64).to(DEVICE)
    results = []
    for trained, elements in ((True, V * N), (False, V * N), (False, 2 * V)):
        monkeypatch.setattr(readout, "CHUNK_ELEMENTS", elements)
        leaf_nd = hidden_nd.clone().requires_grad_()
        found = values(name, leaf_nd, Head(weight_vd.clone().requires_grad_(trained), softcap=softcap))
        weights = torch.linspace(-2, 3, found.numel(), dtype=torch.float64, device=DEVICE).view_as(found)
        (found * weights).sum().backward()
        results.append((found.detach(), leaf_nd.grad))
    assert results[0][1].abs().min() > 0
    for ours in results[1:]:
        for a, b in zip(ours, results[0], strict=True):
            assert (a - b).abs().max() < 1e-12


def test_under_a_frozen_head_logits_are_computed_once_and_under_a_trained_one_twice(monkeypatch):
    calls = []
    logits = Head.logits
    monkeypatch.setattr(Head, "logits", lambda head, hidden_nd: calls.append(len(hidden_nd)) or logits(head, hidden_nd))
    for trained, expected in ((False, [N]), (True, [N, N])):
        calls.clear()
        hidden_nd = torch.randn((N, D), device=DEVICE).requires_grad_()
        head = Head(torch.randn((V, D), device=DEVICE).requires_grad_(trained))
        readout.label_logprobs(hidden_nd, torch.arange(N, device=DEVICE), head).sum().backward()
        assert calls == expected
