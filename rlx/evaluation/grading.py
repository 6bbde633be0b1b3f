"""What a grader sees of the responses of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlx.benchmarks.benchmark import Problem
from rlx.data.response_text import ResponseTexts
from rlx.rewards.reward_input import RewardInput
from rlx.runs.samples import Row


def inputs_of_responses(
    problems: Sequence[Problem], texts: Sequence[ResponseTexts], tokens: Sequence[Sequence[int]]
) -> list[RewardInput]:
    """Inputs of fresh responses.

    Args:
        problems: the problem of each response.
        texts: of each response.
        tokens: token ids of each response.
    """
    return [
        _input(problem, text.completion, text.final, tuple(ids))
        for problem, text, ids in zip(problems, texts, tokens, strict=True)
    ]


def inputs_of_rows(rows: Sequence[Row], problems: Sequence[Problem] = ()) -> list[RewardInput]:
    """Inputs of stored responses, without token ids, which are not stored.

    Args:
        rows: stored samples.
        problems: all problems of the evaluation; without them a grader sees the gold answers only.
    """
    by_id = {problem.id: problem for problem in problems}
    inputs = []
    for row in rows:
        final = row.get("final")
        text = str(row["response"] if final is None else final)
        name, accepted = str(row["problem_id"]), row.get("accepted")
        stored = Problem(name, "", str(row["gold"]), accepted=tuple(json.loads(str(accepted))) if accepted else ())
        inputs.append(_input(by_id.get(name, stored), text, text, ()))
    return inputs


def inputs_of_problems(problems: Sequence[Problem]) -> list[RewardInput]:
    """Inputs with an empty response."""
    return [_input(problem, "", "", ()) for problem in problems]


def _input(problem: Problem, completion: str, final: str, tokens: tuple[int, ...]) -> RewardInput:
    return RewardInput(
        completion=completion,
        final=final,
        answer=problem.gold,
        prompt=list(problem.conversation) or problem.text,
        completion_ids=tokens,
        row=problem.row,
        location=problem.location or problem.id,
        accepted=problem.accepted,
    )
