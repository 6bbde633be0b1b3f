"""Grading of responses by all rewards of a run, with the same result or the same error on every process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlx.data.prompts import Prompt
from rlx.data.response_text import ResponseTexts
from rlx.engine.step import Engine
from rlx.rewards.reward_input import RewardInput
from rlx.rewards.reward_set import RewardError, RewardSet
from rlx.rewards.verdict import Verdict
from rlx.rollout.sampler import Response


def reward_inputs(
    prompts: Sequence[Prompt], groups: Sequence[Sequence[Response]], texts: Sequence[ResponseTexts]
) -> list[RewardInput]:
    """What the rewards see of every response, in the order of the prompts.

    Args:
        prompts: one prompt a group.
        groups: the responses to each prompt.
        texts: of every response.
    """
    responses = [(prompt, response) for prompt, group in zip(prompts, groups, strict=True) for response in group]
    return [
        reward_input(prompt, text.completion, text.final, response.tokens)
        for (prompt, response), text in zip(responses, texts, strict=True)
    ]


def reward_input(prompt: Prompt, completion: str, final: str, tokens: tuple[int, ...]) -> RewardInput:
    """What a reward sees of one response.

    Args:
        prompt: its prompt.
        completion: text of the response.
        final: text behind the end of thinking.
        tokens: token ids of the response.
    """
    return RewardInput(
        completion=completion,
        final=final,
        answer=prompt.answer,
        prompt=list(prompt.conversation) or prompt.question,
        completion_ids=tokens,
        row=prompt.row,
        location=prompt.location or prompt.id,
        accepted=prompt.accepted,
    )


def verdicts_by_reward(samples: Sequence[RewardInput], rewards: RewardSet, engine: Engine) -> dict[str, list[Verdict]]:
    """Verdicts of every reward by its label.

    Raises:
        RewardError: on every process, when a reward gave no score on one of them.
    """
    return _on_all_processes(lambda: rewards.grade(samples), engine)


def first_verdicts(samples: Sequence[RewardInput], rewards: RewardSet, engine: Engine) -> list[Verdict]:
    """Verdicts of the first reward; errors as in ``verdicts_by_reward``."""
    return _on_all_processes(lambda: {"": rewards.grade_first(samples)}, engine)[""]


def _on_all_processes(grade: Callable[[], dict[str, list[Verdict]]], engine: Engine) -> dict[str, list[Verdict]]:
    """The result of ``grade``, or the first process's error on all processes, which then can save a checkpoint."""
    failures: list[tuple[str, str]] = []
    verdicts: dict[str, list[Verdict]] = {}
    try:
        verdicts = grade()
    except RewardError as error:
        failures.append((error.what, error.fix))
    failures = engine.gather(failures)
    if failures:
        raise RewardError(failures[0][0], fix=failures[0][1], exit_code=1)
    return verdicts
