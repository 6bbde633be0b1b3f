"""Prompts to graded groups of responses with advantages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlx.data.prompts import Prompt
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.numerics.collate import TokenSequence
from rlx.numerics.shaping import overlong_penalty
from rlx.rewards.verdict import Decode, Reward, Verdict
from rlx.rollout.sampler import Response, Sampler, Sampling, sample_seed
from rlx.specs.train import Spec


@dataclass(frozen=True, slots=True)
class Graded:
    """One process's groups of a rollout; b = q * g, a group's samples side by side.

    Example:
        8 prompts of 4 samples on the first of 2 processes: ``numbers == [0, 2, 4, 6]``, ``len(responses) == 16``
    """

    prompts: list[Prompt]
    numbers: list[int]
    """Place of each prompt in the rollout over all processes."""
    responses: list[Response]
    texts: list[str]
    verdicts: list[Verdict]
    rewards_b: Tensor
    """Scores after shaping, float64: what advantages are made of."""
    samples: int
    """Group size g."""

    @property
    def sequences(self) -> list[TokenSequence]:
        """Prompt and response tokens of every sample."""
        return [TokenSequence(self.prompts[b // self.samples].tokens, r.tokens) for b, r in enumerate(self.responses)]

    def chosen(self, rows: Sequence[int], numbers: Sequence[int]) -> Graded:
        """The groups at ``rows`` with new ``numbers``."""
        b_rows = [q * self.samples + g for q in rows for g in range(self.samples)]
        return Graded(
            prompts=[self.prompts[q] for q in rows],
            numbers=list(numbers),
            responses=[self.responses[b] for b in b_rows],
            texts=[self.texts[b] for b in b_rows],
            verdicts=[self.verdicts[b] for b in b_rows],
            rewards_b=self.rewards_b[b_rows],
            samples=self.samples,
        )

    def joined(self, other: Graded) -> Graded:
        """These groups and then the other's."""
        return Graded(
            prompts=self.prompts + other.prompts,
            numbers=self.numbers + other.numbers,
            responses=self.responses + other.responses,
            texts=self.texts + other.texts,
            verdicts=self.verdicts + other.verdicts,
            rewards_b=torch.cat([self.rewards_b, other.rewards_b]),
            samples=self.samples,
        )


def sample_groups(
    sampler: Sampler, prompts: Sequence[Prompt], engine: Engine, sampling: Sampling, labels: Sequence[Sequence[int]]
) -> tuple[list[int], list[list[Response]]]:
    """This process's share of the prompts (every ``world``-th one) and their sampled responses.

    Args:
        sampler: see ``Sampler``.
        prompts: the whole rollout's prompts, the same list on all processes.
        engine: tells rank and number of processes.
        sampling: how to draw.
        labels: for each prompt the seeds of its samples.

    Returns:
        Places of this process's prompts in ``prompts``, and their responses.
    """
    numbers = list(range(engine.rank, len(prompts), engine.world))
    tokens = [prompts[number].tokens for number in numbers]
    return numbers, sampler.sample(tokens, [labels[number] for number in numbers], sampling)


def refuse_broken(responses: Sequence[Response], step: int) -> None:
    """Stop where weights have become infinite or no numbers: every log-prob is then none, and rewards are nought.

    Raises:
        UserError: when the first log-prob of a response is not finite.
    """
    broken = sum(not math.isfinite(response.logprobs[0]) for response in responses if response.logprobs)
    if broken:
        raise UserError(
            f"step {step}: log-probs of {broken} of {len(responses)} samples are not finite, so the weights are broken",
            fix="lower optim.lr and start anew with --fresh; checkpoints from before are kept",
            exit_code=1,
        )


def rollout_seeds(run_seed: int, start: int, prompts: int, samples: int) -> list[list[int]]:
    """Seeds of a rollout's samples: functions of the run's seed, the prompt's place in the run and the sample alone.

    Args:
        run_seed: the run's seed.
        start: prompts drawn before this rollout.
        prompts: prompts of this rollout.
        samples: group size g.
    """
    return [[sample_seed(run_seed, "rollout", start + q, g) for g in range(samples)] for q in range(prompts)]


def grade(
    prompts: list[Prompt], numbers: list[int], groups: list[list[Response]], reward: Reward, decode: Decode, spec: Spec
) -> Graded:
    """Verdicts of this process's samples, with the overlong penalty in the rewards.

    Args:
        prompts: the whole rollout's prompts.
        numbers: this process's places in it.
        groups: the responses at those places.
        reward: (response, gold) pairs to verdicts.
        decode: token ids to text, special tokens left out.
        spec: the experiment.
    """
    mine = [prompts[number] for number in numbers]
    responses = [response for group in groups for response in group]
    texts = [decode(response.tokens) for response in responses]
    golds = [prompt.answer for prompt, group in zip(mine, groups, strict=True) for _ in group]
    verdicts = reward(list(zip(texts, golds, strict=True)))
    scores_b = torch.tensor([verdict.score for verdict in verdicts], dtype=torch.float64)
    lengths_b = torch.tensor([len(response.tokens) for response in responses])
    penalty_b = overlong_penalty(lengths_b, spec.rollout.max_new_tokens, spec.reward.overlong_buffer)
    return Graded(
        mine, numbers, responses, texts, verdicts, scores_b + penalty_b, samples=spec.rollout.samples_per_prompt
    )


def with_signal(graded: Graded, wanted: int, engine: Engine) -> tuple[Graded, int]:
    """The first ``wanted`` groups over all processes, those whose rewards differ before those whose rewards are equal.

    Returns:
        This process's share of them, and how many groups over all processes had differing rewards.
    """
    rewards_qg = graded.rewards_b.reshape(-1, graded.samples)
    differ = (rewards_qg.amax(dim=1) > rewards_qg.amin(dim=1)).tolist()
    every = sorted(
        (not signal, number) for number, signal in engine.gather(list(zip(graded.numbers, differ, strict=True)))
    )
    places = {number: place for place, (_, number) in enumerate(every[:wanted])}
    rows = [row for row, number in enumerate(graded.numbers) if number in places]
    kept = graded.chosen(rows, [places[graded.numbers[row]] for row in rows])
    return kept, sum(not dull for dull, _ in every)


def group_advantages(graded: Graded, advantage: Callable[[Tensor], Tensor], engine: Engine) -> Tensor:
    """Advantage of each of this process's samples [b], float32; the function sees all processes' rewards [q, g]."""
    rewards_qg = graded.rewards_b.reshape(-1, graded.samples)
    rows = sorted(engine.gather(list(zip(graded.numbers, rewards_qg.tolist(), strict=True))))
    adv_qg = advantage(torch.tensor([row for _, row in rows], dtype=torch.float64))
    place = {number: row for row, (number, _) in enumerate(rows)}
    return adv_qg[[place[number] for number in graded.numbers]].flatten().float()
