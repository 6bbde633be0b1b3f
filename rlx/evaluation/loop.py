"""Evaluation by sampling, in a loop that may be killed at any point: stored samples are not sampled again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from rlx.benchmarks.benchmark import Problem
from rlx.errors import UserError, reason
from rlx.rewards.verdict import Decode, Reward
from rlx.rollout.sampler import Sampler, Sampling, sample_seed
from rlx.runs.folder_parts import EvalDir
from rlx.runs.samples import Row, write_samples
from rlx.runs.stop import Interrupted, Stop
from rlx.specs.evaluate import Protocol


@dataclass(frozen=True, slots=True)
class EvalTask:
    """The inputs of one benchmark's evaluation.

    Example:
        ``EvalTask(protocol, problems, prompts=[(7, 10, 8, 14)], sampler=lambda: sampler, ...)``
    """

    protocol: Protocol
    problems: Sequence[Problem]
    prompts: Sequence[tuple[int, ...]]
    """Token ids of each problem's rendered prompt."""
    sampler: Callable[[], Sampler]
    """Called before the first sample, so that a finished evaluation loads no weights."""
    sampling: Sampling
    reward: Reward
    decode: Decode
    folder: EvalDir
    stop: Stop
    batch: int
    """Number of responses that are sampled and written together."""


def evaluate(task: EvalTask, progress: Callable[[Sequence[Row], int], None]) -> list[Row] | None:
    """The rows of all samples: stored ones are read, the others are sampled, graded and written, part by part.

    Args:
        task: the problems and how to sample and grade them.
        progress: called with the rows so far and the total number.

    Returns:
        Rows ordered by problem and sample, or None if a stop was requested.

    Raises:
        UserError: when they cannot be written; earlier parts are kept.
    """
    rows = stored_rows(task.folder)
    sampled = {(row["problem_id"], row["sample"]) for row in rows}
    n = task.protocol.n
    all_samples = [(q, g) for q in range(len(task.problems)) for g in range(n)]
    todo = [(q, g) for q, g in all_samples if (task.problems[q].id, g) not in sampled]
    progress(rows, len(all_samples))
    number = 1 + max((int(part.stem.removeprefix("part_")) for part in task.folder.parts()), default=-1)
    for start in range(0, len(todo), task.batch):
        try:
            with task.stop.interruptible(alone=True):
                fresh = _sampled(task, todo[start : start + task.batch])
        except Interrupted:
            return None
        _written(fresh, task.folder, number)
        number += 1
        rows += fresh
        progress(rows, len(all_samples))
    order = {problem.id: q for q, problem in enumerate(task.problems)}
    return sorted(rows, key=lambda row: (order[str(row["problem_id"])], int(row["sample"] or 0)))


def regrade(folder: EvalDir, into: EvalDir, reward: Reward) -> list[Row]:
    """Grade stored responses again, part by part; nothing is sampled.

    Args:
        folder: the responses.
        into: folder of the new verdicts; may be the same.
        reward: the grader.
    """
    all_rows: list[Row] = []
    for number, part in enumerate(folder.parts()):
        rows: list[Row] = pq.read_table(part).to_pylist()
        verdicts = reward([(str(row["response"]), str(row["gold"])) for row in rows])
        for row, verdict in zip(rows, verdicts, strict=True):
            row |= {"score": verdict.score, "reason": verdict.reason, "extracted": verdict.extracted}
        _written(rows, into, int(part.stem.removeprefix("part_")) if into == folder else number)
        all_rows += rows
    return all_rows


def stored_rows(folder: EvalDir) -> list[Row]:
    """Every stored row.

    Raises:
        UserError: when a part file is damaged.
    """
    rows: list[Row] = []
    for part in folder.parts():
        try:
            rows += pq.read_table(part).to_pylist()
        except (OSError, ValueError) as error:
            raise UserError(
                f"{part} cannot be read ({str(error).splitlines()[0]})",
                fix="remove it: its samples are drawn again",
                exit_code=1,
            ) from None
    return rows


def _sampled(task: EvalTask, pairs: Sequence[tuple[int, int]]) -> list[Row]:
    """Sampled and graded rows of (problem, sample) pairs; the samples of a problem are neighbours."""
    by_problem: dict[int, list[int]] = {}
    for q, g in pairs:
        by_problem.setdefault(q, []).append(g)
    name, seed = task.protocol.benchmark, task.protocol.seed
    seeds = [[sample_seed(seed, "eval", name, task.problems[q].id, g) for g in by_problem[q]] for q in by_problem]
    groups = task.sampler().sample([task.prompts[q] for q in by_problem], seeds, task.sampling)
    responses = [response for group in groups for response in group]
    texts = [task.decode(response.tokens) for response in responses]
    verdicts = task.reward([(text, task.problems[q].gold) for text, (q, _) in zip(texts, pairs, strict=True)])
    flat_seeds: list[Any] = [seed for group in seeds for seed in group]
    return [
        {
            "benchmark": name,
            "problem_id": task.problems[q].id,
            "sample": g,
            "seed": flat_seeds[i],
            "subject": task.problems[q].subject,
            "level": task.problems[q].level,
            "gold": task.problems[q].gold,
            "response": texts[i],
            "extracted": verdicts[i].extracted,
            "score": verdicts[i].score,
            "reason": verdicts[i].reason,
            "tokens": len(responses[i].tokens),
            "finished": responses[i].finished,
        }
        for i, (q, g) in enumerate(pairs)
    ]


def _written(rows: Sequence[Row], folder: EvalDir, number: int) -> None:
    try:
        write_samples(rows, folder.part(number))
    except OSError as error:
        raise UserError(
            f"{folder.part(number)} cannot be written ({reason(error)})",
            fix="free some space and run the same command again: stored samples are kept",
            exit_code=1,
        ) from None
