"""Measure a rollout by each engine: 8 prompts x 8 samples of 32 tokens from SmolLM2-135M; engines alternate; medians.

    .venv-vllm/bin/python experiments/perf/rollouts.py [--model models/smollm2-135m] [--threads 2] [--rounds 5]

``generate`` is transformers' own generation with all 64 sequences in a batch, as TRL's GRPOTrainer calls it without
vLLM. No token ends a response, so that all engines draw the same number of tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampler, Sampling, sample_seed
from rlx.rollout.vllm import EngineOptions, VLLMSampler

PROMPTS, SAMPLES, PROMPT_TOKENS, TOKENS = 8, 8, 46, 32
NO_STOP = (4,)
"""``<reponame>``, which the model never draws here."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).resolve().parents[2] / "models" / "smollm2-135m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(100, 49_000, (PROMPT_TOKENS,), generator=generator).tolist() for _ in range(PROMPTS)]
    lm = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    rounds: dict[str, Callable[[int], None]] = {"transformers generate, float32": lambda _: generate(lm, prompts)}
    rounds["rlx hf, float32"] = sampling(HFSampler(lm), prompts)
    for dtype in ("float32", "bfloat16"):
        engine = VLLMSampler(EngineOptions(str(arguments.model), dtype, longest=PROMPT_TOKENS + TOKENS))
        rounds[f"rlx vllm, {dtype}"] = sampling(engine, prompts)
    seconds: dict[str, list[float]] = {name: [] for name in rounds}
    for number in range(arguments.rounds + 1):
        for name, rollout in rounds.items():
            start = time.perf_counter()
            rollout(number)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    print(f"| engine | median s of {arguments.rounds} | lowest | tokens/s |\n|---|---|---|---|")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.2f} | {min(values):.2f} | {PROMPTS * SAMPLES * TOKENS / median:.0f} |")


def sampling(sampler: Sampler, prompts: list[list[int]]) -> Callable[[int], None]:
    """A function that samples one rollout with one of our samplers; each round has its own seeds."""

    def rollout(number: int) -> None:
        seeds = [[sample_seed(number, q, g) for g in range(SAMPLES)] for q in range(PROMPTS)]
        sampler.sample(prompts, seeds, Sampling(1.0, TOKENS, stop_ids=NO_STOP))

    return rollout


@torch.no_grad()
def generate(lm: torch.nn.Module, prompts: list[list[int]]) -> None:
    """Sample one rollout with transformers' own generation."""
    ids = torch.tensor([prompt for prompt in prompts for _ in range(SAMPLES)])
    mask = torch.ones_like(ids)
    lm.generate(ids, attention_mask=mask, do_sample=True, min_new_tokens=TOKENS, max_new_tokens=TOKENS, pad_token_id=0)


if __name__ == "__main__":
    main()
