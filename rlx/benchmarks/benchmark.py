"""The definition of a benchmark, and fingerprints of its problems."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from rlx.rewards.by_text import cleaned

BOXED_PROMPT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
"""The prompt that DeepSeek-R1's model card recommends."""
FINGERPRINTS = Path(__file__).parent / "fingerprints.json"
"""Hashes of every benchmark's problems, checked by ``rlx eval --check-benchmarks``; no text is stored."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A set of problems with its prompt and grader.

    Example:
        ``Benchmark(hub="openai/gsm8k", rows=1319, sha256="9f...", grader="rlx", problem="question", answer="answer")``
    """

    hub: str
    """Data set on the hub, or ``arithmetic``, the embedded one."""
    rows: int
    sha256: str
    """``set_hash`` of the reviewed rows; rows with another hash are refused."""
    sequence: str = ""
    """``sequence_hash`` of the reviewed rows with their reviewed ids; other ids or another order give another
    protocol."""
    subset: str | None = None
    split: str = "test"
    revision: str | None = None
    """Commit on the hub; None if none could be verified, and the hash alone pins the set."""
    problem: str = "problem"
    """Column of the question on the hub; local files call it ``problem``."""
    answer: str = "answer"
    """Column of the gold on the hub; local files call it ``answer``."""
    answer_format: str = "raw"
    """Format of the hub's gold: ``raw`` or ``gsm8k_hash``; local files have it raw."""
    file: str = ""
    """Stem of the local file, if it is not the benchmark's name."""
    prompt: str = BOXED_PROMPT
    """``{problem}`` is replaced by the problem's text."""
    grader: str = "rlx"
    longest: int | None = None
    """Upper limit of the response length (tokens)."""
    left_out: frozenset[str] = frozenset()
    """Fingerprints of rows that other published versions of the benchmark leave out."""
    bad_golds: frozenset[str] = frozenset()
    """Fingerprints of problems whose gold is known not to grade as right against itself or to be malformed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Example:
        ``Problem(id="aime24-I-01", text="Every morning Aya ...", gold="204")``
    """

    id: str
    text: str
    gold: str
    subject: str = ""
    level: str = ""
    accepted: tuple[str, ...] = ()
    """Other answers that are right too."""
    system: str | None = None
    """The problem's own system prompt; None for that of the evaluation."""
    history: tuple[tuple[str, str], ...] = ()
    """Messages of a conversation before the problem, as (role, content)."""
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """All columns of the row, which a grader may ask for."""
    conversation: tuple[Mapping[str, Any], ...] = field(default=(), compare=False, repr=False)
    """The messages of the prompt's column, if it holds a conversation."""
    location: str = field(default="", compare=False)
    """Source and line, for messages."""


def fingerprint(problem: str) -> str:
    """12 hex digits that depend on a problem's letters and digits only: mirrors differ in case and typesetting."""
    plain = "".join(filter(str.isalnum, problem.casefold()))
    return hashlib.sha256(plain.encode()).hexdigest()[:12]


def set_hash(problems: Iterable[Problem]) -> str:
    """SHA-256 of a set's problems and golds, independent of order, ids and typesetting."""
    lines = sorted(
        " ".join([fingerprint(problem.text), *map(cleaned, (problem.gold, *problem.accepted)), *_additions(problem)])
        for problem in problems
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def sequence_hash(problems: Iterable[Problem]) -> str:
    """SHA-256 of ids, texts and golds in their order: what samples, their seeds and a limit depend on."""
    content = json.dumps(
        [(problem.id, problem.text, problem.gold, *problem.accepted, *_additions(problem)) for problem in problems]
    )
    return hashlib.sha256(content.encode()).hexdigest()


def _additions(problem: Problem) -> list[str]:
    """A problem's system prompt and earlier messages as text; empty if it has none, as those of benchmarks."""
    if problem.system is None and not problem.history:
        return []
    return [json.dumps([problem.system, problem.history])]


def distinct_ids(problems: Sequence[Problem]) -> tuple[list[Problem], int]:
    """Problems with ids that differ, and the number of ids that were changed.

    The second problem with the id ``x`` gets ``x#2``, the third ``x#3``; an id that another problem has is skipped.
    Samples are stored and seeded by id, so two problems with one id would share both.
    """
    given = {problem.id for problem in problems}
    used: set[str] = set()
    result = []
    for problem in problems:
        name, number = problem.id, 1
        while name in used or (number > 1 and name in given):
            number += 1
            name = f"{problem.id}#{number}"
        used.add(name)
        result.append(replace(problem, id=name))
    return result, sum(new.id != old.id for new, old in zip(result, problems, strict=True))


@cache
def known_fingerprints() -> Mapping[str, frozenset[str]]:
    """Fingerprints of the problems of every benchmark that has been pinned."""
    content = json.loads(FINGERPRINTS.read_text(encoding="utf-8"))
    return {name: frozenset(marks.split()) for name, marks in content.items()}


def overlaps(texts: Iterable[str], benchmarks: Iterable[str] = ()) -> dict[str, int]:
    """The number of problems of each benchmark that occur in ``texts``; benchmarks without any are left out.

    Args:
        texts: training prompts.
        benchmarks: names; all pinned benchmarks if empty.
    """
    seen = {fingerprint(text) for text in texts}
    pinned = known_fingerprints()
    counts = {name: len(pinned.get(name, frozenset()) & seen) for name in benchmarks or pinned}
    return {name: count for name, count in counts.items() if count}


def overlap_warnings(texts: Iterable[str], benchmarks: Iterable[str] = ()) -> list[str]:
    """A sentence for every benchmark that shares problems with training prompts; see ``overlaps``."""
    return [
        f"{count} of the training prompts stand in benchmark {name} too, and its figure will flatter the run"
        for name, count in overlaps(texts, benchmarks).items()
    ]
