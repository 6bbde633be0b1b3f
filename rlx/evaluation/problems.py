"""The problems of an evaluation: reviewed benchmarks, and the user's own questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlx.benchmarks.benchmark import Benchmark, Problem, distinct_ids, fingerprint, sequence_hash, set_hash
from rlx.console import warn
from rlx.data import arithmetic
from rlx.data.rows import column, read_rows
from rlx.data.values import as_text
from rlx.engine.processes import launched
from rlx.errors import UserError
from rlx.evaluation.own_problems import label, problem_id, read_own_problems
from rlx.files.sources import Source
from rlx.registry import get
from rlx.rewards.extract import last_hash
from rlx.specs.evaluate import EvalSpec


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """The problems of one benchmark, with ids that differ.

    Example:
        ``ProblemSet("aime24", benchmark, [Problem(...)], data_sha256="1f...", sequence_sha256="")``
    """

    name: str
    benchmark: Benchmark
    problems: Sequence[Problem]
    """Those within the spec's limit."""
    data_sha256: str
    """``set_hash`` of the complete set."""
    sequence_sha256: str
    """``sequence_hash`` of the complete set; empty if it is the reviewed one."""
    notices: tuple[str, ...] = ()
    """Sentences about rows that were left out, columns that were found and ids that were changed."""


def problem_sets(spec: EvalSpec) -> list[ProblemSet]:
    """The problems of every benchmark of an evaluation, then the user's own questions.

    Raises:
        UserError: see ``load_problems`` and ``read_own_problems``.
    """
    sets = []
    for name in spec.benchmarks:
        problems, data_hash = load_problems(name, spec.data_dir, spec.unpinned)
        sets.append(_problem_set(name, get("benchmark", name).fn(), problems, data_hash, spec.limit))
    if spec.data is not None:
        own = read_own_problems(spec.data)
        data_hash = set_hash(own.problems)
        benchmark = Benchmark(hub=spec.data.source, rows=len(own.problems), sha256=data_hash)
        problem_set = _problem_set(spec.data.benchmark, benchmark, own.problems, data_hash, spec.limit)
        sets.append(replace(problem_set, notices=(*own.notices, *problem_set.notices)))
    if not launched():  # the processes of --processes leave the notices to the process that starts them
        for problem_set in sets:
            for notice in problem_set.notices:
                warn(f"{problem_set.name}: {notice}")
    return sets


def load_problems(name: str, data_dir: str | None, unpinned: bool = False) -> tuple[list[Problem], str]:
    """The problems of a benchmark and the hash of the set.

    Args:
        name: the benchmark.
        data_dir: folder with ``<name>.jsonl``; None for the hub.
        unpinned: accept another set than the reviewed one.

    Raises:
        UserError: for a missing file or column, an unreadable gold, no problem, or a set that is not the reviewed one.
    """
    benchmark: Benchmark = get("benchmark", name, key="benchmark").fn()
    problems = [
        problem for problem in _rows(name, benchmark, data_dir) if fingerprint(problem.text) not in benchmark.left_out
    ]
    if not problems:
        raise UserError(f"benchmark {name} has no usable row (it is empty)", fix="check the file in --data-dir")
    data_hash = set_hash(problems)
    if data_hash != benchmark.sha256 and not unpinned:
        raise UserError(
            f"benchmark {name}: the {len(problems)} rows have the hash {data_hash[:12]}, the {benchmark.rows} reviewed "
            f"rows {benchmark.sha256[:12]}",
            fix="give the reviewed rows with --data-dir, or accept these with --set unpinned=true",
            exit_code=1,
        )
    return problems, data_hash


def _problem_set(
    name: str, benchmark: Benchmark, problems: Sequence[Problem], data_hash: str, limit: int | None
) -> ProblemSet:
    """The set with distinct ids; a notice reports ids that were changed."""
    distinct, changed = distinct_ids(problems)
    notices = []
    if changed:
        first = next(new.id for new, old in zip(distinct, problems, strict=True) if new.id != old.id)
        notices.append(
            f"{changed} of {len(problems)} problems repeat an id; they get ids of their own, such as {first}"
        )
    sequence = sequence_hash(distinct)
    return ProblemSet(
        name,
        benchmark,
        distinct[:limit],
        data_hash,
        "" if sequence == benchmark.sequence else sequence,
        tuple(notices),
    )


def _rows(name: str, benchmark: Benchmark, data_dir: str | None) -> Iterator[Problem]:
    if benchmark.hub == "arithmetic":
        yield from (Problem(row["id"], row["prompt"], row["answer"]) for row in arithmetic.rows("test"))
        return
    local = Path(data_dir) / f"{benchmark.file or name}.jsonl" if data_dir else None
    if local is not None and not local.is_file():
        raise UserError(f"benchmark {name}: there is no file {local}", fix="put it there, or leave --data-dir out")
    source = str(local) if local else benchmark.hub
    keys = ("problem", "answer") if local else (benchmark.problem, benchmark.answer)
    origin = Source(source, benchmark.subset, benchmark.split, benchmark.revision, key=f"benchmark {name}")
    for number, source_row in enumerate(read_rows(origin)):
        row, where, key_name = source_row.content, f"{source} {source_row.location}", f"benchmark {name}"
        text, answer = (column(row, key, where, key_name) for key in keys)
        # The parts of an answer in several parts are graded together, unlike the accepted answers of training data.
        parts = answer if isinstance(answer, list) and answer else [answer]
        gold = ", ".join(as_text(part, where, key_name) for part in parts)
        if not local and benchmark.answer_format == "gsm8k_hash":
            gold = (last_hash(gold) or "").replace(",", "")
        yield Problem(
            id=problem_id(row, f"{name}-{number:04d}"),
            text=as_text(text, where, key_name),
            gold=gold.strip(),
            subject=label(row, "subject"),
            level=label(row, "level"),
            row=row,
            location=where,
        )
