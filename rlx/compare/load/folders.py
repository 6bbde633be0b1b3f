"""Run folders to what a comparison is made of; evaluations that don't match are refused here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlx.benchmarks.summary import Score, from_json
from rlx.compare.load.results import RunResult, Scores
from rlx.compare.report.curves import AXES, BY_STEP, EVERY_AXIS
from rlx.errors import UserError
from rlx.runs.folder import RunDir, read_json
from rlx.runs.tracking import flattened, read_metrics

UNNAMED = ("seed", "run_name", "backend", "model", "tracker", "checkpoint", "algorithm.name", "method.name")
"""Keys of a spec that a method's name never shows: they have columns of their own or change no result."""
PARAMS = ("algorithm.params.", "method.params.")
DRAWN = {"step", *(source for source, _ in AXES.values()), *(key for key, _ in (*EVERY_AXIS, *BY_STEP))}
"""Metrics that a report draws; the others are not kept in memory."""
Accepts = Callable[[Mapping[str, Any]], bool]
"""Whether an evaluation's protocol is one that the comparison asks for."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One finished evaluation.

    Example:
        ``Evaluated(protocol={"benchmark": "aime24", "n": 32}, scores=[Score(...)])``
    """

    protocol: Mapping[str, Any]
    scores: Sequence[Score]


@dataclass(frozen=True, slots=True)
class Trained:
    """One run as read, before its evaluations are chosen.

    Example:
        ``Trained("dgpo_s0-1f0c", spec={"seed": 0}, metrics=(), evaluations=())``
    """

    run_id: str
    spec: Mapping[str, Any]
    metrics: tuple[Mapping[str, float], ...]
    evaluations: tuple[Evaluated, ...]


def read_run(folder: RunDir, checkpoint: str = "final") -> Trained:
    """A run folder's spec, drawn metrics and finished evaluations of one checkpoint."""
    resolved = read_json(folder.resolved)
    metrics = tuple(drawn(record) for record in read_metrics(folder.metrics))
    found = [
        Evaluated(read_json(each.protocol), from_json(read_json(each.result))[1])
        for each in folder.evaluations(checkpoint)
        if each.result.is_file()
    ]
    return Trained(folder.run_id, resolved["spec"], metrics, tuple(found))


def drawn(record: Mapping[str, float]) -> dict[str, float]:
    """The figures of a record that a report draws."""
    return {key: value for key, value in record.items() if key in DRAWN}


def results(runs: Sequence[Trained], accepts: Accepts, labels: Mapping[str, str] | None = None) -> list[RunResult]:
    """Runs with one evaluation a benchmark: the protocol that most runs share, of those the one with most samples.

    Args:
        runs: as read.
        accepts: which protocols count.
        labels: names of methods by run id, where a study gives them.

    Raises:
        UserError: for a run without any evaluation that counts.
    """
    names = method_names([run.spec for run in runs])
    digests = [{_digest(each.protocol): each for each in run.evaluations if accepts(each.protocol)} for run in runs]
    spread: dict[str, int] = {}
    for digest in itertools.chain.from_iterable(digests):
        spread[digest] = spread.get(digest, 0) + 1
    made = []
    for run, name, found in zip(runs, names, digests, strict=True):
        if not found:
            raise UserError(
                f"run {run.run_id} has no finished evaluation", fix=f"rlx eval {run.run_id} --bench ...", exit_code=1
            )
        chosen: dict[str, Evaluated] = {}
        for digest in sorted(found, key=lambda d: (spread[d], int(found[d].protocol["n"]), d)):
            chosen[str(found[digest].protocol["benchmark"])] = found[digest]
        ordered = [chosen[benchmark] for benchmark in sorted(chosen)]
        made.append(
            RunResult(
                run_id=run.run_id,
                method=(labels or {}).get(run.run_id) or name,
                seed=int(run.spec["seed"]),
                model=str(run.spec["model"]["path"]),
                protocol={f"{e.protocol['benchmark']}.{key}": v for e in ordered for key, v in e.protocol.items()},
                scores=tuple(_scores(each) for each in ordered),
                metrics=run.metrics,
            )
        )
    return made


def mismatched(runs: Sequence[RunResult]) -> dict[str, str]:
    """Protocol fields that differ between runs that were measured on the same benchmark, with two of their values."""
    first: dict[str, tuple[str, object]] = {}
    differing: dict[str, str] = {}
    for run in runs:
        for key, value in run.protocol.items():
            known, other = first.setdefault(key, (run.run_id, value))
            if other != value:
                differing.setdefault(key, f"{_short(other)} in {known}, {_short(value)} in {run.run_id}")
    return differing


def method_names(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The policy loss or unlearning method of each spec, with whatever else differs among the specs of that method."""
    flats = [_identity(spec) for spec in specs]
    losses = [str(spec.get("algorithm", spec.get("method"))["name"]) for spec in specs]
    seen: dict[tuple[str, str], set[str]] = {}
    for loss, flat in zip(losses, flats, strict=True):
        for key, value in flat.items():
            seen.setdefault((loss, key), set()).add(value)
    return [
        " ".join([loss, *(f"{_short_key(key)}={v}" for key, v in flat.items() if len(seen[loss, key]) > 1)])
        for loss, flat in zip(losses, flats, strict=True)
    ]


def _short_key(key: str) -> str:
    return next((key.removeprefix(each) for each in PARAMS if key.startswith(each)), key)


def _identity(spec: Mapping[str, Any]) -> dict[str, str]:
    flat = flattened(spec)
    return {key: v for key, v in flat.items() if not any(key == u or key.startswith(f"{u}.") for u in UNNAMED)}


def _digest(protocol: Mapping[str, Any]) -> str:
    return repr(sorted(protocol.items()))


def _scores(evaluated: Evaluated) -> Scores:
    """One row a problem: its right samples as ones, the rest as noughts; their order says nothing."""
    rows = [np.clip(each.correct - np.arange(each.n), 0.0, 1.0) for each in evaluated.scores]
    ids = tuple(each.id for each in evaluated.scores)
    return Scores(str(evaluated.protocol["benchmark"]), ids, np.stack(rows))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def refuse_mismatch(runs: Iterable[RunResult], force: bool) -> tuple[str, ...]:
    """Names of the protocol fields that differ.

    Raises:
        UserError: when any does and the person has not forced the comparison.
    """
    differing = mismatched(list(runs))
    if differing and not force:
        said = "; ".join(f"{key} ({values})" for key, values in differing.items())
        raise UserError(
            f"these runs were not measured alike: {said}",
            fix="evaluate them by one protocol with rlx eval, or compare them all the same with --force",
            exit_code=1,
        )
    return tuple(differing)
