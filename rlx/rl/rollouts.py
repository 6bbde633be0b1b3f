"""From prompts to graded groups of responses and their advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlx.data.prompts import Prompt
from rlx.data.response_text import ResponseText
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.numerics.advantages import ADVANTAGES, normalise_each
from rlx.numerics.collate import TokenSequence
from rlx.numerics.shaping import overlong_penalty
from rlx.rewards.reward_set import RewardSet, weighted_verdicts
from rlx.rewards.verdict import Verdict
from rlx.rl.grading import reward_inputs, verdicts_by_reward
from rlx.rollout.sampler import Response, Sampler, Sampling, sample_seed
from rlx.specs.train import Spec


@dataclass(frozen=True, slots=True)
class Grader:
    """The rewards of a run and what grading needs.

    Example:
        ``Grader(spec, load_rewards([("boxed", 1.0)]), ResponseText(tokenizer, stops), engine)``
    """

    spec: Spec
    rewards: RewardSet
    text: ResponseText
    """Decodes responses."""
    engine: Engine


@dataclass(frozen=True, slots=True)
class Graded:
    """One process's groups of a rollout; b = q * g, the samples of a group are neighbours.

    Example:
        8 prompts of 4 samples on the first of 2 processes: ``prompt_indices == [0, 2, 4, 6]``, ``len(responses) == 16``
    """

    prompts: list[Prompt]
    prompt_indices: list[int]
    """Index of each prompt in the rollout over all processes."""
    responses: list[Response]
    texts: list[str]
    verdicts: list[Verdict]
    rewards_b: Tensor
    """Weighted sum of the scores, after shaping (float64)."""
    samples: int
    """Group size g."""
    by_reward: Mapping[str, list[Verdict]] = field(default_factory=dict)
    """Verdicts of each reward by its label."""

    @property
    def sequences(self) -> list[TokenSequence]:
        """Prompt and response tokens of every sample."""
        return [TokenSequence(self.prompts[b // self.samples].tokens, r.tokens) for b, r in enumerate(self.responses)]

    def select(self, rows: Sequence[int], prompt_indices: Sequence[int]) -> Graded:
        """The groups at ``rows`` with new ``prompt_indices``."""
        b_rows = [q * self.samples + g for q in rows for g in range(self.samples)]
        return Graded(
            prompts=[self.prompts[q] for q in rows],
            prompt_indices=list(prompt_indices),
            responses=[self.responses[b] for b in b_rows],
            texts=[self.texts[b] for b in b_rows],
            verdicts=[self.verdicts[b] for b in b_rows],
            rewards_b=self.rewards_b[b_rows],
            samples=self.samples,
            by_reward={label: [verdicts[b] for b in b_rows] for label, verdicts in self.by_reward.items()},
        )

    def joined(self, other: Graded) -> Graded:
        """These groups followed by the other's."""
        return Graded(
            prompts=self.prompts + other.prompts,
            prompt_indices=self.prompt_indices + other.prompt_indices,
            responses=self.responses + other.responses,
            texts=self.texts + other.texts,
            verdicts=self.verdicts + other.verdicts,
            rewards_b=torch.cat([self.rewards_b, other.rewards_b]),
            samples=self.samples,
            by_reward={label: verdicts + other.by_reward[label] for label, verdicts in self.by_reward.items()},
        )


def sample_groups(
    sampler: Sampler, prompts: Sequence[Prompt], engine: Engine, sampling: Sampling, seeds: Sequence[Sequence[int]]
) -> tuple[list[int], list[list[Response]]]:
    """This process's share of the prompts (every ``world``-th one) and their sampled responses.

    Args:
        sampler: see ``Sampler``.
        prompts: all prompts of the rollout, the same list on all processes.
        engine: provides rank and number of processes.
        sampling: the sampling parameters.
        seeds: for each prompt the seeds of its samples.

    Returns:
        Indices of this process's prompts in ``prompts``, and their responses.
    """
    indices = list(range(engine.rank, len(prompts), engine.world))
    tokens = [prompts[index].tokens for index in indices]
    return indices, sampler.sample(tokens, [seeds[index] for index in indices], sampling)


def refuse_non_finite(responses: Sequence[Response], step: int) -> None:
    """Stop a run whose weights have become infinite or NaN: its log-probs are NaN and its rewards 0.

    Raises:
        UserError: when the first log-prob of a response is not finite.
    """
    not_finite = sum(not math.isfinite(response.logprobs[0]) for response in responses if response.logprobs)
    if not_finite:
        raise UserError(
            f"step {step}: log-probs of {not_finite} of {len(responses)} samples are not finite, so the weights are "
            "damaged",
            fix="lower optim.lr and start again with --fresh; earlier checkpoints are kept",
            exit_code=1,
        )


def rollout_seeds(run_seed: int, start: int, prompts: int, samples: int) -> list[list[int]]:
    """Seeds of a rollout's samples, functions of the run's seed, the prompt's index in the run and the sample alone.

    Args:
        run_seed: the run's seed.
        start: number of prompts drawn before this rollout.
        prompts: number of prompts of this rollout.
        samples: group size g.
    """
    return [[sample_seed(run_seed, "rollout", start + q, g) for g in range(samples)] for q in range(prompts)]


def grade(prompts: list[Prompt], indices: list[int], groups: list[list[Response]], grader: Grader) -> Graded:
    """Grade this process's samples; the overlong penalty is added to their rewards.

    Args:
        prompts: all prompts of the rollout.
        indices: this process's prompts among them.
        groups: the responses to those prompts.
        grader: the rewards, and what they need.

    Raises:
        RewardError: on every process, when a reward gave no score on one of them.
    """
    spec = grader.spec
    own_prompts = [prompts[index] for index in indices]
    responses = [response for group in groups for response in group]
    texts = [grader.text.read(response.tokens) for response in responses]
    by_reward = verdicts_by_reward(reward_inputs(own_prompts, groups, texts), grader.rewards, grader.engine)
    verdicts = weighted_verdicts(by_reward, grader.rewards.weights)
    scores_b = torch.tensor([verdict.score for verdict in verdicts], dtype=torch.float64)
    lengths_b = torch.tensor([len(response.tokens) for response in responses])
    penalty_b = overlong_penalty(lengths_b, spec.rollout.max_new_tokens, spec.reward.overlong_buffer)
    return Graded(
        prompts=own_prompts,
        prompt_indices=indices,
        responses=responses,
        texts=[text.full for text in texts],
        verdicts=verdicts,
        rewards_b=scores_b + penalty_b,
        samples=spec.rollout.samples_per_prompt,
        by_reward=by_reward,
    )


def select_with_signal(graded: Graded, spec: Spec, engine: Engine) -> tuple[Graded, int]:
    """The first ``batch.prompts`` groups over all processes, groups with unequal rewards first.

    Returns:
        This process's share of them, and the number of groups with unequal rewards over all processes.
    """
    count = spec.batch.prompts
    rewards = [graded.rewards_b] if spec.advantage.combine == "sum" else _scores(graded)
    rewards_kqg = torch.stack(rewards).reshape(len(rewards), -1, graded.samples)
    differ = (rewards_kqg.amax(dim=2) > rewards_kqg.amin(dim=2)).any(dim=0).tolist()
    own = list(zip(graded.prompt_indices, differ, strict=True))
    ordered = sorted((not signal, index) for index, signal in engine.gather(own))
    new_index = {index: position for position, (_, index) in enumerate(ordered[:count])}
    rows = [row for row, index in enumerate(graded.prompt_indices) if index in new_index]
    selected = graded.select(rows, [new_index[graded.prompt_indices[row]] for row in rows])
    return selected, sum(not equal for equal, _ in ordered)


def group_advantages(graded: Graded, spec: Spec, engine: Engine) -> Tensor:
    """Advantages of this process's samples [b] (float32), computed from the rewards of all processes."""
    advantage = ADVANTAGES[spec.advantage.name]
    separate = spec.advantage.combine == "normalise_each"
    lengths_b = torch.tensor([len(response.tokens) for response in graded.responses], dtype=torch.float64)
    values_kb = torch.stack([lengths_b, *(_scores(graded) if separate else [graded.rewards_b])])
    groups_qkg = values_kb.reshape(len(values_kb), -1, graded.samples).transpose(0, 1)
    rows = sorted(engine.gather(list(zip(graded.prompt_indices, groups_qkg.tolist(), strict=True))))
    groups_kqg = torch.tensor([row for _, row in rows], dtype=torch.float64).transpose(0, 1)
    if separate:
        weights = [reward.weight for reward in spec.weighted_rewards]
        adv_qg = normalise_each(groups_kqg[1:], weights, groups_kqg[0], advantage)
    else:
        adv_qg = advantage(groups_kqg[1], groups_kqg[0])
    row_of = {index: row for row, (index, _) in enumerate(rows)}
    return adv_qg[[row_of[index] for index in graded.prompt_indices]].flatten().float()


def _scores(graded: Graded) -> list[Tensor]:
    """Scores [b] of each reward (float64)."""
    return [
        torch.tensor([verdict.score for verdict in verdicts], dtype=torch.float64)
        for verdicts in graded.by_reward.values()
    ]
