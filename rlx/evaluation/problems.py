"""A benchmark's problems from the hub, a local file or the package, checked against the reviewed set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlx.benchmarks.benchmark import Benchmark, Problem, fingerprint, set_hash
from rlx.data import arithmetic
from rlx.data.rows import column, read_rows
from rlx.data.values import as_text
from rlx.errors import UserError
from rlx.files.sources import Source
from rlx.registry import get
from rlx.rewards.extract import last_hash


def load_problems(name: str, data_dir: str | None, unpinned: bool = False) -> tuple[list[Problem], str]:
    """The problems of a benchmark and the hash of the set.

    Args:
        name: the benchmark.
        data_dir: folder with ``<name>.jsonl``; None for the hub.
        unpinned: accept another set than the reviewed one.

    Raises:
        UserError: for a missing file or column, or a set that is not the reviewed one.
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
        row, where, label = source_row.content, f"{source} {source_row.location}", f"benchmark {name}"
        text, answer = (column(row, key, where, label) for key in keys)
        # The parts of an answer in several parts are graded together, unlike the accepted answers of training data.
        parts = answer if isinstance(answer, list) and answer else [answer]
        gold = ", ".join(as_text(part, where, label) for part in parts)
        if not local and benchmark.answer_format == "gsm8k_hash":
            gold = (last_hash(gold) or "").replace(",", "")
        yield Problem(
            id=str(row.get("id") or f"{name}-{number:04d}"),
            text=as_text(text, where, label),
            gold=gold.strip(),
            subject=_label(row, "subject"),
            level=_label(row, "level"),
        )


def _label(row: Any, key: str) -> str:
    value = row.get(key)
    return "" if value is None else str(value)
