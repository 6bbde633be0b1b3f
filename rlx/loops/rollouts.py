"""Prompts to graded groups of responses with advantages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlx.data.prompts import Prompt
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenSequence
from rlx.rewards.verdict import Verdict
from rlx.rollout.sampler import Response, Sampler, Sampling, sample_seed

Reward = Callable[[Sequence[tuple[str, str]]], list[Verdict]]
"""(response, gold) pairs to verdicts."""
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Sampled:
    """This process's groups of one rollout; b = q * g, a group's samples side by side.

    Example:
        8 prompts of 4 samples on the first of 2 processes: ``numbers == [0, 2, 4, 6]``, ``len(responses) == 16``
    """

    prompts: list[Prompt]
    numbers: list[int]
    """Place of each prompt in the rollout over all processes."""
    responses: list[Response]
    samples: int
    """Group size g."""

    @property
    def sequences(self) -> list[TokenSequence]:
        """Prompt and response tokens of every sample."""
        return [TokenSequence(self.prompts[b // self.samples].tokens, r.tokens) for b, r in enumerate(self.responses)]


@dataclass(frozen=True, slots=True)
class Graded:
    """Sampled groups with texts, verdicts and advantages.

    Example:
        ``Graded(sampled, texts=["7+5=12 4+8=12#132"], verdicts=[Verdict(1.0, "exact", "132")], ...)``
    """

    sampled: Sampled
    texts: list[str]
    verdicts: list[Verdict]
    adv_b: Tensor
    """Advantage of each sample, float32."""
    rewards_qg: Tensor
    """Rewards of all processes' groups, in the order of the rollout, float64."""


def sample_groups(
    sampler: Sampler, prompts: Sequence[Prompt], engine: Engine, sampling: Sampling, labels: Sequence[Sequence[int]]
) -> Sampled:
    """This process's share of the prompts (every ``world``-th one) and their sampled responses.

    Args:
        sampler: see ``Sampler``.
        prompts: the whole rollout's prompts, the same list on all processes.
        engine: tells rank and number of processes.
        sampling: how to draw.
        labels: for each prompt the seeds of its samples.
    """
    numbers = list(range(engine.rank, len(prompts), engine.world))
    mine = [prompts[number] for number in numbers]
    groups = sampler.sample([prompt.tokens for prompt in mine], [labels[number] for number in numbers], sampling)
    return Sampled(mine, numbers, [response for group in groups for response in group], len(labels[0]))


def rollout_seeds(run_seed: int, step: int, prompts: Sequence[Prompt], samples: int) -> list[list[int]]:
    """Seeds of every sample of a rollout: functions of run seed, step, place and sample alone."""
    return [[sample_seed(run_seed, "rollout", step, q, g) for g in range(samples)] for q in range(len(prompts))]


def grade(
    sampled: Sampled, reward: Reward, decode: Decode, advantage: Callable[[Tensor], Tensor], engine: Engine
) -> Graded:
    """Verdicts of this process's samples, and advantages that see all processes' rewards.

    Args:
        sampled: this process's groups.
        reward: (response, gold) pairs to verdicts.
        decode: token ids to text, special tokens left out.
        advantage: rewards [q, g] to advantages [q, g].
        engine: gathers over processes.
    """
    texts = [decode(response.tokens) for response in sampled.responses]
    golds = [sampled.prompts[b // sampled.samples].answer for b in range(len(texts))]
    verdicts = reward(list(zip(texts, golds, strict=True)))
    scores = torch.tensor([v.score for v in verdicts], dtype=torch.float64).reshape(-1, sampled.samples)
    rows = engine.gather(list(zip(sampled.numbers, scores.tolist(), strict=True)))
    rewards_qg = torch.tensor([row for _, row in sorted(rows)], dtype=torch.float64)
    adv_qg = advantage(rewards_qg)[sampled.numbers]
    return Graded(sampled, texts, verdicts, adv_qg.flatten().float(), rewards_qg)
