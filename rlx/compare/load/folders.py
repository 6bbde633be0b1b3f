"""Read run folders as the input of a comparison, and refuse runs whose evaluation protocols differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlx.compare.load.results import RunResult, Scores
from rlx.compare.report.curves import AXES, BY_STEP, EVERY_AXIS
from rlx.errors import UserError
from rlx.runs.folder import RunDir, read_json
from rlx.runs.mlflow_settings import flattened
from rlx.runs.tracking import read_metrics

KEYS_NOT_IN_NAMES = ("seed", "run_name", "backend", "model", "tracker", "checkpoint", "algorithm.name", "method.name")
"""Keys of a spec that a method's name never shows: they have columns of their own or do not change the result."""
PARAM_PREFIXES = ("algorithm.params.", "method.params.")
REPORT_METRICS = {
    "step",
    *(source for source, _ in AXES.values()),
    *(key for key, _ in (*EVERY_AXIS, *BY_STEP)),
}
"""Metrics that a report plots; the others are not kept in memory."""
ProtocolFilter = Callable[[Mapping[str, Any]], bool]
"""Whether an evaluation with this protocol is used in the comparison."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One finished evaluation.

    Example:
        ``Evaluation(protocol={"benchmark": "aime24", "n": 32}, scores=Scores(...))``
    """

    protocol: Mapping[str, Any]
    scores: Scores

    @staticmethod
    def of(protocol: Mapping[str, Any], result: Mapping[str, Any]) -> Evaluation:
        """The evaluation from the contents of protocol.json and result.json.

        One row per problem: its correct samples as ones, then zeros; the order of samples in a row is arbitrary.
        """
        ids = tuple(str(score["id"]) for score in result["scores"])
        correct_p = np.array([score["correct"] for score in result["scores"]], dtype=np.float64)
        (samples,) = {int(score["n"]) for score in result["scores"]} or {0}
        rows_pn = np.clip(correct_p[:, None] - np.arange(samples), 0.0, 1.0)
        return Evaluation(protocol, Scores(str(protocol["benchmark"]), ids, rows_pn))


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """One run of `rlx train` with all its evaluations.

    Example:
        ``TrainedRun("dgpo_s0-1f0c", spec={"seed": 0}, metrics=(), evaluations=())``
    """

    run_id: str
    spec: Mapping[str, Any]
    metrics: tuple[Mapping[str, float], ...]
    evaluations: tuple[Evaluation, ...]


def read_run(folder: RunDir, checkpoint: str = "final") -> TrainedRun:
    """Read a run's spec, the metrics that a report plots, and the finished evaluations of one checkpoint."""
    resolved = read_json(folder.resolved)
    metrics = tuple(report_metrics(record) for record in read_metrics(folder.metrics))
    evaluations = [
        Evaluation.of(read_json(evaluation.protocol), read_json(evaluation.result))
        for evaluation in folder.evaluations(checkpoint)
        if evaluation.result.is_file()
    ]
    return TrainedRun(folder.run_id, resolved["spec"], metrics, tuple(evaluations))


def report_metrics(record: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a record that a report plots."""
    return {key: value for key, value in record.items() if key in REPORT_METRICS}


def run_results(
    runs: Sequence[TrainedRun], accepts: ProtocolFilter, labels: Mapping[str, str] | None = None
) -> list[RunResult]:
    """Select one evaluation per run and benchmark: the protocol that most runs share; of those, the most samples.

    Args:
        runs: the runs.
        accepts: filter of the evaluations by their protocol.
        labels: names of methods by run id, if a study gives them.

    Raises:
        UserError: for a run without an accepted evaluation.
    """
    names = method_names([run.spec for run in runs])
    evaluations_by_digest = [{_digest(e.protocol): e for e in run.evaluations if accepts(e.protocol)} for run in runs]
    run_counts: dict[str, int] = {}
    for digest in itertools.chain.from_iterable(evaluations_by_digest):
        run_counts[digest] = run_counts.get(digest, 0) + 1
    run_list = []
    for run, name, evaluations in zip(runs, names, evaluations_by_digest, strict=True):
        if not evaluations:
            raise UserError(
                f"run {run.run_id} has no finished evaluation",
                fix=f"evaluate it with rlx eval {run.run_id} --bench ...",
                exit_code=1,
            )
        selected: dict[str, Evaluation] = {}
        # The last one of a benchmark wins.
        for digest in sorted(evaluations, key=lambda d: (run_counts[d], int(evaluations[d].protocol["n"]), d)):
            selected[str(evaluations[digest].protocol["benchmark"])] = evaluations[digest]
        ordered = [selected[benchmark] for benchmark in sorted(selected)]
        run_list.append(
            RunResult(
                run_id=run.run_id,
                method=(labels or {}).get(run.run_id) or name,
                seed=int(run.spec["seed"]),
                model=str(run.spec["model"]["path"]),
                protocol={f"{e.protocol['benchmark']}.{key}": v for e in ordered for key, v in e.protocol.items()},
                scores=tuple(evaluation.scores for evaluation in ordered),
                metrics=run.metrics,
                steps=int(run.spec["steps"]),
            )
        )
    return run_list


def differing_fields(runs: Sequence[RunResult]) -> dict[str, str]:
    """Protocol fields that differ between runs measured on the same benchmark, with two of their values."""
    first: dict[str, tuple[str, object]] = {}
    differing: dict[str, str] = {}
    for run in runs:
        for key, value in run.protocol.items():
            first_run, first_value = first.setdefault(key, (run.run_id, value))
            if first_value != value:
                differing.setdefault(key, f"{_short(first_value)} in {first_run}, {_short(value)} in {run.run_id}")
    return differing


def method_names(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each spec's policy loss or unlearning method, with the keys that differ among its specs of the same model.

    A key that differs only between models, such as a parameter that a paper chooses by size, is not shown: the report
    compares within a model.
    """
    flat_specs = [_named_keys(spec) for spec in specs]
    methods = [str(spec.get("algorithm", spec.get("method"))["name"]) for spec in specs]
    models = [str(spec["model"]["path"]) for spec in specs]
    values: dict[tuple[str, str, str], set[str]] = {}
    for method, model, flat in zip(methods, models, flat_specs, strict=True):
        for key, value in flat.items():
            values.setdefault((method, key, model), set()).add(value)
    shown = {(method, key) for (method, key, _), several in values.items() if len(several) > 1}
    return [
        " ".join([method, *(f"{_short_key(key)}={value}" for key, value in flat.items() if (method, key) in shown)])
        for method, flat in zip(methods, flat_specs, strict=True)
    ]


def _short_key(key: str) -> str:
    return next((key.removeprefix(prefix) for prefix in PARAM_PREFIXES if key.startswith(prefix)), key)


def _named_keys(spec: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a spec that a method's name may show, flattened to dotted keys."""
    flat = flattened(spec)
    return {
        key: value
        for key, value in flat.items()
        if not any(key == hidden or key.startswith(f"{hidden}.") for hidden in KEYS_NOT_IN_NAMES)
    }


def _digest(protocol: Mapping[str, Any]) -> str:
    return repr(sorted(protocol.items()))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def check_protocols(runs: Iterable[RunResult], force: bool) -> tuple[str, ...]:
    """Names of the protocol fields that differ between the runs.

    Raises:
        UserError: if any field differs and ``force`` is False.
    """
    differing = differing_fields(list(runs))
    if differing and not force:
        fields = "; ".join(f"{key} ({values})" for key, values in differing.items())
        fix = "evaluate them with one protocol with rlx eval, or compare them nevertheless with --force"
        if all(key.endswith(".grader_version") for key in differing):
            fix = "grade their stored responses again with --regrade, or compare them nevertheless with --force"
        raise UserError(f"these runs were measured with different protocols: {fields}", fix=fix, exit_code=1)
    return tuple(differing)
