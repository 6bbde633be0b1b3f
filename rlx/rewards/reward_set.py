"""The rewards of a training run: every one graded, failures reported in one sentence, scores summed with weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from rlx.errors import UserError
from rlx.rewards.call import call_reward
from rlx.rewards.grade import shared_symbolic_pool
from rlx.rewards.outcome import Failure, Outcome
from rlx.rewards.reward_input import RewardInput
from rlx.rewards.user_function import RewardFunction, load_reward
from rlx.rewards.verdict import NeedsSymbolicCheck, Verdict
from rlx.rewards.workers import RewardWorkers

Grader = Callable[[Sequence[RewardInput]], list[Verdict]]
"""A function from what can be seen of each response to one verdict each."""


class RewardError(UserError):
    """A reward function that gave no score; the sentence says where and what to do."""


@dataclass(frozen=True, slots=True)
class NamedReward:
    """One reward of a run, with the name that its metrics have.

    Example:
        ``NamedReward("length", weight=0.2, function=load_reward("my.py:length", "rewards.1.name"))``
    """

    label: str
    weight: float
    function: RewardFunction
    key: str
    """The spec key that names it."""


@dataclass(frozen=True, slots=True)
class RewardSet:
    """The rewards of a run.

    Example:
        ``load_rewards([("rlx", 1.0), ("my.py:format", 0.2)]).grade(samples)["format"][0].score``
    """

    rewards: Sequence[NamedReward]
    seconds: float = 60.0
    """Time limit of one call."""
    on_error: Literal["stop", "zero"] = "stop"
    workers: RewardWorkers | None = None
    replaced: dict[str, str] = field(default_factory=dict)
    """First failure of each reward that was replaced by the score 0, a sentence by the reward's label."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each reward by its label."""
        return {reward.label: reward.weight for reward in self.rewards}

    def check_columns(self, columns: Collection[str]) -> None:
        """Refuse parameters that the data has no column for; see ``RewardFunction.check_columns``."""
        for reward in self.rewards:
            reward.function.check_columns(columns, reward.key)

    def grade(self, samples: Sequence[RewardInput]) -> dict[str, list[Verdict]]:
        """Verdicts of all rewards by label.

        Raises:
            RewardError: when a reward gives no score and ``on_error`` is ``stop``.
        """
        return {reward.label: self._verdicts(reward, samples) for reward in self.rewards}

    def grade_first(self, samples: Sequence[RewardInput]) -> list[Verdict]:
        """Verdicts of the first reward, by which accuracy is measured; see ``grade``."""
        return self._verdicts(self.rewards[0], samples)

    def close(self) -> None:
        """Stop the worker processes."""
        if self.workers is not None:
            self.workers.close()

    def _verdicts(self, reward: NamedReward, samples: Sequence[RewardInput]) -> list[Verdict]:
        if not samples:
            return []
        one_gold = list(samples)
        if reward.function.form == "grader":
            one_gold = [replace(sample, answer=gold) for sample in samples for gold in sample.golds]
        stop = self.on_error == "stop"
        if self.workers is None:
            outcomes = call_reward(reward.function, one_gold, self.seconds, stop)
        else:
            outcomes = self.workers.call(reward.function, one_gold, stop)
        verdicts = [
            self._verdict(reward, result, sample)
            for result, sample in zip(_with_symbolic(outcomes), one_gold, strict=True)
        ]
        if len(verdicts) == len(samples):
            return verdicts
        remaining = iter(verdicts)
        return [max(islice(remaining, len(sample.golds)), key=lambda verdict: verdict.score) for sample in samples]

    def _verdict(self, reward: NamedReward, result: Verdict | Failure, sample: RewardInput) -> Verdict:
        """The verdict, or with ``on_error: zero`` a score of 0 in place of a failure."""
        if isinstance(result, Verdict):
            return result
        error = _error(reward, result, sample)
        if self.on_error == "stop":
            raise error
        self.replaced.setdefault(reward.label, f"{error.what}; such samples get the score 0 (reward.on_error=zero)")
        return Verdict(0.0, result.kind, None)


def load_rewards(
    references: Sequence[tuple[str, float]],
    seconds: float = 60.0,
    on_error: Literal["stop", "zero"] = "stop",
    workers: int = 0,
) -> RewardSet:
    """The rewards of a run, loaded.

    Args:
        references: name or ``file.py:function`` of each reward, and its weight.
        seconds: time limit of one call.
        on_error: what a call without a score does.
        workers: number of worker processes; 0 calls the functions in this process.

    Raises:
        UserError: when a reward is missing or cannot be called.
    """
    rewards: list[NamedReward] = []
    for index, (reference, weight) in enumerate(references):
        key = "reward.name" if len(references) == 1 else f"rewards.{index}.name"
        labels = {reward.label for reward in rewards}
        rewards.append(NamedReward(_label(reference, labels), weight, load_reward(reference, key), key))
    pool = RewardWorkers(workers, [reference for reference, _ in references], seconds) if workers else None
    return RewardSet(rewards, seconds, on_error, pool)


def load_grader(reference: str, key: str, columns: Collection[str], seconds: float = 60.0) -> Grader:
    """One reward alone, for evaluations and previews.

    Args:
        reference: a registered name, or ``path/to/file.py:function``.
        key: the spec key that the reference came from.
        columns: names of the columns that at least one row of the data has.
        seconds: time limit of one call.

    Raises:
        UserError: when there is none, or it asks for a column that the data does not have.
    """
    rewards = RewardSet([NamedReward("", 1.0, load_reward(reference, key), key)], seconds)
    rewards.check_columns(columns)
    return rewards.grade_first


def weighted_verdicts(verdicts: dict[str, list[Verdict]], weights: dict[str, float]) -> list[Verdict]:
    r"""One verdict a sample: the score \sum_k w_k s_k, with the reason and the answer of the first reward.

    Args:
        verdicts: by the rewards' labels.
        weights: by the same labels.
    """
    first, *others = verdicts
    if not others and weights[first] == 1:
        return verdicts[first]
    samples = zip(*verdicts.values(), strict=True)
    return [
        Verdict(
            sum(weights[label] * verdict.score for label, verdict in zip(verdicts, sample, strict=True)),
            sample[0].reason,
            sample[0].extracted,
        )
        for sample in samples
    ]


def _label(reference: str, others: set[str]) -> str:
    """The name of a reward in metrics: its registered name or its function's, numbered if another has it."""
    file, _, function = reference.partition(".py:")
    base = function or Path(file).stem
    number = 1
    label = base
    while label in others:
        number += 1
        label = f"{base}_{number}"
    return label


def _with_symbolic(outcomes: Sequence[Outcome]) -> list[Verdict | Failure]:
    """The outcomes with the answers compared that text alone could not decide."""
    questions = [result for result in outcomes if isinstance(result, NeedsSymbolicCheck)]
    compared = iter(shared_symbolic_pool().compare(questions) if questions else [])
    return [next(compared) if isinstance(result, NeedsSymbolicCheck) else result for result in outcomes]


def _error(reward: NamedReward, failure: Failure, sample: RewardInput) -> RewardError:
    function, line = reward.function, failure.line or reward.function.line
    where = f"{function.file} line {line}" if line else function.file
    word, fix = "grader", failure.fix
    if reward.key != word:
        word, fix = "reward", f"{fix}, or set reward.on_error=zero to give such samples the score 0"
    return RewardError(
        f"{word} '{function.reference}' {failure.problem} on a response to {sample.location} ({where})",
        fix=fix,
        exit_code=1,
    )
