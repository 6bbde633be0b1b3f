"""The fused kernel's selection, inputs and gradients, with a plain function in its place: it runs on CUDA only."""

import sys
from types import SimpleNamespace

import pytest
import torch

from rlx.numerics.output_layer import entropy, fused
from rlx.numerics.output_layer import tiled as tiles
from rlx.numerics.output_layer.logprobs import Head, token_logprobs

calls = []


def linear_cross_entropy(e, c, targets, softcap=None, reduction="mean"):
    """The formula that cut-cross-entropy documents."""
    calls.append((e.dtype, c.dtype, softcap, reduction))
    logits = e @ c.T
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction=reduction)


@pytest.fixture
def package(monkeypatch):
    """cut-cross-entropy as an installed package."""
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", SimpleNamespace(linear_cross_entropy=linear_cross_entropy))
    fused.installed_kernel.cache_clear()
    calls.clear()
    yield
    fused.installed_kernel.cache_clear()


def states(dtype=torch.float32):
    torch.manual_seed(0)
    hidden, weight = torch.randn(7, 5, dtype=dtype), torch.randn(11, 5, dtype=dtype)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(0, 11, (7,)), torch.randn(7, dtype=dtype)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize(("scale", "temperature"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (0.25, 1.3)])
def test_scale_temperature_and_soft_cap_reach_the_kernel_and_gradients_come_back(
    softcap, scale, temperature, package, monkeypatch
):
    hidden, weight, targets, factor = states()
    head = Head(weight, softcap=softcap, scale=scale)
    results = []
    for devices in (set(), {"cpu"}):
        monkeypatch.setattr(fused, "DEVICES", devices)
        monkeypatch.setattr(fused, "DTYPES", {torch.float32})
        logprobs, entropies = token_logprobs(hidden, targets, head, temperature)
        results.append((logprobs, entropies, *torch.autograd.grad((logprobs * factor).sum(), (hidden, weight))))
        assert not entropies.requires_grad and bool(calls) == bool(devices)
    assert calls[0][3] == "none"
    for ours, kernels in zip(*results, strict=True):
        assert torch.allclose(ours, kernels, atol=1e-5)


def test_under_autocast_the_kernel_gets_bfloat16_and_gradients_are_float32(package, monkeypatch):
    monkeypatch.setattr(fused, "DEVICES", {"cpu"})
    hidden, weight, targets, factor = states()
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, entropies = token_logprobs(hidden, targets, Head(weight), 0.7)
    (logprobs * factor).sum().backward()
    assert calls == [(torch.bfloat16, torch.bfloat16, None, "none")]
    assert hidden.grad.dtype == weight.grad.dtype == logprobs.dtype == entropies.dtype == torch.float32
    plain = ((hidden @ weight.T) / 0.7).log_softmax(1)
    assert torch.allclose(logprobs, plain[torch.arange(7), targets], atol=0.1)
    assert torch.allclose(entropies, -(plain.exp() * plain).sum(1), atol=0.1)


def test_the_kernel_is_used_on_cuda_in_bfloat16_without_a_bias_and_if_it_is_installed(package, monkeypatch):
    head = Head(torch.empty(11, 5))
    cuda = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16)
    assert fused.kernel_for(cuda, head) is linear_cross_entropy
    assert fused.kernel_for(SimpleNamespace(device=cuda.device, dtype=torch.float32), head) is None
    assert fused.kernel_for(torch.empty(7, 5, dtype=torch.bfloat16), head) is None, "on a CPU"
    assert fused.kernel_for(cuda, Head(torch.empty(11, 5), torch.empty(11))) is None
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert fused.kernel_for(cuda, head) is None, "its gradients may differ from run to run"
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", None)
    fused.installed_kernel.cache_clear()
    assert fused.kernel_for(cuda, head) is None


@pytest.mark.parametrize("tile", [1, 4, 11, 2048])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("biased", [True, False])
def test_entropies_in_tiles_equal_the_plain_formula(tile, softcap, biased, monkeypatch):
    monkeypatch.setattr(tiles, "TILE", tile)
    hidden, weight, _, _ = states(torch.float64)
    head = Head(weight, torch.randn(11, dtype=torch.float64) if biased else None, softcap, 0.5)
    plain = (head.logits(hidden) / 0.7).log_softmax(1)
    assert torch.allclose(entropy.entropies(hidden, head, 0.7), -(plain.exp() * plain).sum(1), atol=1e-12)


@pytest.mark.slow
def test_compiled_statistics_of_a_tile_equal_the_uncompiled_ones():
    torch.manual_seed(0)
    for n, k in ((9, 64), (33, 64), (33, 17)):
        logits = torch.randn(n, k).bfloat16()
        compiled = entropy._compiled_statistics()(logits, 0.5, None, 0.7)
        for one, other in zip(compiled, entropy.tile_statistics(logits, 0.5, None, 0.7), strict=True):
            assert torch.allclose(one, other, rtol=1e-5)


def test_tiles_are_wider_on_cuda():
    assert tiles.tile_width(torch.device("cpu")) == 2048
    assert tiles.tile_width(torch.device("cuda")) == 8192
