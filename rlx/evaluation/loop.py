"""Evaluation by sampling, in a loop that may be killed at any point: stored samples are not sampled again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from rlx.benchmarks.benchmark import Problem
from rlx.console import warn
from rlx.data.response_text import ResponseText
from rlx.errors import UserError, reason
from rlx.evaluation.grading import inputs_of_responses
from rlx.rewards.reward_input import RewardInput
from rlx.rewards.reward_set import Grader
from rlx.rewards.verdict import Verdict
from rlx.rollout.sampler import Finished, Sampler, Sampling, sample_seed
from rlx.runs.folder_parts import EvalDir, part_number
from rlx.runs.integrity import Damaged, set_aside
from rlx.runs.samples import Row, read_samples, write_samples
from rlx.runs.stop import Interrupted, Stop
from rlx.specs.evaluate import Protocol

WRITE_EVERY = 20.0
"""Seconds after which finished responses are written, however few they are."""


@dataclass(frozen=True, slots=True)
class Share:
    """The problems of one of several processes: of those without stored samples, every ``size``-th from ``rank``.

    Example:
        the second of two processes, started when three part files existed: ``Share(rank=1, size=2, first_part=3)``
    """

    rank: int = 0
    size: int = 1
    first_part: int | None = None
    """Part files from this number on are written by the processes of this call; None counts the existing ones."""


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
    grader: Grader
    text: ResponseText
    folder: EvalDir
    stop: Stop
    batch: int
    """Number of responses that are graded and written together."""
    alone: bool = True
    """False if other processes compute parts of the same forward passes, so that a stop must wait for them."""


def evaluate(
    task: EvalTask, progress: Callable[[Sequence[Row], int], None], share: Share | None = None
) -> list[Row] | None:
    """The rows of all samples: stored ones are read, the others are sampled, graded and written as they finish.

    Args:
        task: the problems and how to sample and grade them.
        progress: called with the rows so far and the total number.
        share: this process's share of the problems; by default all.

    Returns:
        Rows ordered by problem and sample (of this process's share, and those that were stored before), or None if a
        stop was requested.

    Raises:
        UserError: when they cannot be written; earlier parts are kept.
    """
    share = share or Share()
    first_part = next_part(task.folder) if share.first_part is None else share.first_part
    rows = stored_rows(task.folder, first_part)
    _check_stored(rows, task)
    sampled = {(row["problem_id"], row["sample"]) for row in rows}
    n = task.protocol.n
    missing = {q: [g for g in range(n) if (problem.id, g) not in sampled] for q, problem in enumerate(task.problems)}
    pending = [(q, samples) for q, samples in missing.items() if samples]
    progress(rows, n * len(task.problems))
    own = pending[share.rank :: share.size]
    number, expected = first_part + share.rank, len(rows) + sum(len(samples) for _, samples in own)
    for finished in _parts(task, own):
        fresh = _graded(task, finished)
        _written(fresh, task.folder, number)
        number += share.size
        rows += fresh
        progress(rows, n * len(task.problems))
    if len(rows) < expected:
        return None
    order = {problem.id: q for q, problem in enumerate(task.problems)}
    return sorted(rows, key=lambda row: (order[str(row["problem_id"])], int(row["sample"] or 0)))


def _check_stored(rows: Sequence[Row], task: EvalTask) -> None:
    """Refuse stored samples of other problems, which versions before the protocol covered ids may have written.

    Raises:
        UserError: naming the first of them.
    """
    golds = {problem.id: problem.gold for problem in task.problems}
    other = [row for row in rows if golds.get(str(row["problem_id"])) != row["gold"]]
    if other:
        raise UserError(
            f"{task.folder.samples} holds samples of other problems, such as '{other[0]['problem_id']}' with the gold "
            f"{other[0]['gold']!r:.40}",
            fix="move that folder away: its problems had other ids or another order",
            exit_code=1,
        )


def _parts(task: EvalTask, missing: Sequence[tuple[int, Sequence[int]]]) -> Iterator[list[Finished]]:
    """Finished responses (problem, sample, response) in parts; ends early, with all finished ones, at a stop.

    Args:
        task: the problems and how to sample them.
        missing: problems and their samples that are not stored.
    """
    if not missing:
        return
    name, seed = task.protocol.benchmark, task.protocol.seed
    seeds = [[sample_seed(seed, "eval", name, task.problems[q].id, g) for g in samples] for q, samples in missing]
    finished: list[Finished] = []
    written = time.monotonic()
    try:
        with task.stop.interruptible(task.alone):
            sampler = task.sampler()
        with closing(sampler.stream([task.prompts[q] for q, _ in missing], seeds, task.sampling)) as responses:
            while True:
                with task.stop.interruptible(task.alone):
                    response = next(responses, None)
                if response is None:
                    break
                index, sample, text = response
                finished.append((missing[index][0], missing[index][1][sample], text))
                if len(finished) >= task.batch or time.monotonic() - written >= WRITE_EVERY:
                    yield finished
                    finished, written = [], time.monotonic()
    except Interrupted:
        pass
    if finished:
        yield finished


def regrade(folder: EvalDir, into: EvalDir, grade: Callable[[Sequence[Row]], Sequence[Verdict]]) -> list[Row]:
    """Grade stored responses again, part by part; nothing is sampled.

    Args:
        folder: the responses.
        into: folder of the new verdicts; may be the same.
        grade: gives one verdict for each stored row.
    """
    all_rows: list[Row] = []
    for number, part in enumerate(folder.parts()):
        try:
            rows = read_samples(part)
        except Damaged as damage:
            raise UserError(
                f"{damage} in {part.parent}", fix="run without --regrade: its samples are drawn again", exit_code=1
            ) from None
        verdicts = grade(rows)
        for row, verdict in zip(rows, verdicts, strict=True):
            row |= {"score": verdict.score, "reason": verdict.reason, "extracted": verdict.extracted}
        _written(rows, into, part_number(part) if into == folder else number)
        all_rows += rows
    return all_rows


def graded(inputs: Sequence[RewardInput], task: EvalTask) -> list[Verdict]:
    """The grader's verdicts.

    Raises:
        UserError: for a score outside [0, 1], of which pass@k and the intervals would have no meaning.
    """
    verdicts = task.grader(inputs)
    for sample, verdict in zip(inputs, verdicts, strict=True):
        if not 0 <= verdict.score <= 1:
            raise UserError(
                f"grader '{task.protocol.grader}' gave {verdict.score:g} to a response to {sample.location}",
                fix="the scores of an evaluation are from 0 (wrong) to 1 (right): divide by the largest one",
                exit_code=1,
            )
    return verdicts


def next_part(folder: EvalDir) -> int:
    """The number of the next part file."""
    return 1 + max((part_number(part) for part in folder.parts()), default=-1)


def stored_rows(folder: EvalDir, before: int | None = None) -> list[Row]:
    """Every stored row, or those in part files with smaller numbers than ``before``; damaged parts are set aside."""
    rows: list[Row] = []
    for part in folder.parts():
        if before is not None and part_number(part) >= before:
            continue
        try:
            rows += read_samples(part)
        except Damaged as damage:
            with suppress(FileNotFoundError):  # another process of this evaluation may have renamed it
                aside = set_aside(part)
                warn(f"{damage} in {part.parent}; it was renamed to {aside.name} and its samples are drawn again")
    return rows


def _graded(task: EvalTask, finished: Sequence[Finished]) -> list[Row]:
    """Rows of (problem, sample, response)."""
    protocol = task.protocol
    tokens = [response.tokens for _, _, response in finished]
    texts = [task.text.read(ids) for ids in tokens]
    verdicts = graded(inputs_of_responses([task.problems[q] for q, _, _ in finished], texts, tokens), task)
    rows: list[Row] = []
    for text, verdict, (q, g, response) in zip(texts, verdicts, finished, strict=True):
        problem = task.problems[q]
        rows.append(
            {
                "benchmark": protocol.benchmark,
                "problem_id": problem.id,
                "sample": g,
                "seed": sample_seed(protocol.seed, "eval", protocol.benchmark, problem.id, g),
                "subject": problem.subject,
                "level": problem.level,
                "gold": problem.gold,
                "accepted": json.dumps(problem.accepted) if problem.accepted else None,
                "response": text.full,
                "final": None if text.final == text.full else text.final,
                "extracted": verdict.extracted,
                "score": verdict.score,
                "reason": verdict.reason,
                "tokens": len(response.tokens),
                "finished": response.finished,
            }
        )
    return rows


def _written(rows: Sequence[Row], folder: EvalDir, number: int) -> None:
    try:
        write_samples(rows, folder.part(number))
    except OSError as error:
        raise UserError(
            f"{folder.part(number)} cannot be written ({reason(error)})",
            fix="free some space and run the same command again: stored samples are kept",
            exit_code=1,
        ) from None
