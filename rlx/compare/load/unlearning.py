"""Reading unlearning runs for a comparison: every metric by author, so that authors can be resampled.

All figures are fractions of which more is better, so that one set of tests and words serves them and benchmarks alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlx.benchmarks.tofu.scores import Sample, aggregates, kept_scores, kept_utility
from rlx.compare.load.folders import method_names, plotted_metrics
from rlx.compare.load.results import EXTRACTION, FORGETTING, UTILITY, WITHSTANDS, RunResult, Scores, Unlearned
from rlx.compare.statistics.significance import linearised
from rlx.errors import UserError
from rlx.runs.folder import RunDir, read_json
from rlx.runs.tracking import read_metrics

Cluster = tuple[str, int]
"""A part of the data and an author in it."""


@dataclass(frozen=True, slots=True)
class Certified:
    """One finished unlearning run as read.

    Example:
        ``Certified("palu_s0-1f0c", resolved={...}, summary={...}, certificate={...}, rows=[...], metrics=())``
    """

    run_id: str
    resolved: Mapping[str, Any]
    summary: Mapping[str, Any]
    certificate: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    """Of samples.parquet, all models."""
    metrics: tuple[Mapping[str, float], ...]


def is_unlearning(resolved: Mapping[str, Any]) -> bool:
    """Whether a run's resolved experiment is one of unlearning."""
    return "forget" in resolved["spec"]


def read_certified(folder: RunDir) -> Certified:
    """A finished run's folder.

    Raises:
        UserError: when the run is not finished.
    """
    if not folder.summary.is_file():
        raise UserError(
            f"run {folder.run_id} is not finished", fix=f"rlx unlearn {folder.spec} goes on with it", exit_code=1
        )
    import pyarrow.parquet as pq

    rows = [row for part in sorted(folder.samples.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    return Certified(
        folder.run_id,
        read_json(folder.resolved),
        read_json(folder.summary),
        read_json(folder.certificate),
        rows,
        tuple(plotted_metrics(record) for record in read_metrics(folder.metrics)),
    )


def certified_results(runs: Sequence[Certified], labels: Mapping[str, str] | None = None) -> list[RunResult]:
    """Runs with their figures on the final half of the forget set and the kept sets, by author.

    Args:
        runs: as read.
        labels: names of methods by run id, where a study gives them.
    """
    names = method_names([run.resolved["spec"] for run in runs])
    return [
        RunResult(
            run_id=run.run_id,
            method=(labels or {}).get(run.run_id) or name,
            seed=int(run.resolved["spec"]["seed"]),
            model=str(run.resolved["spec"]["model"]["path"]),
            protocol=_protocol(run.resolved),
            scores=_run_scores(run),
            metrics=run.metrics,
            unlearned=_unlearned(run),
        )
        for run, name in zip(runs, names, strict=True)
    ]


def _protocol(resolved: Mapping[str, Any]) -> dict[str, object]:
    """The settings that must be equal for runs to be comparable: the requests, their prompts, and the measurements."""
    spec, fingerprints = resolved["spec"], resolved["fingerprints"]
    requested = {f"forget.{key}": spec["forget"][key] for key in ("source", "retain", "system", "suffix", "chat")}
    requested |= {
        f"forget.{key}": fingerprints[name]
        for key, name in (("source", "forget"), ("retain", "retain"))
        if name in fingerprints
    }
    measured = {f"evaluation.{key}": value for key, value in spec["evaluation"].items()}
    others = {key: fingerprints[key] for key in ("tofu", "retain_model") if key in fingerprints}
    return {**requested, **measured, **others}


def _unlearned(run: Certified) -> Unlearned:
    metrics = {
        model: {name: estimate["value"] for name, estimate in estimates.items() if estimate["value"] is not None}
        for model, estimates in run.certificate["aggregates"].items()
        if estimates
    }
    curve, selected_step = run.summary["curve"], run.summary["selected_step"]
    before = kept_utility(metrics["before"])
    return Unlearned(
        curve=tuple((forgetting, utility) for _, forgetting, utility in curve),
        selected=next((index for index, (step, *_) in enumerate(curve) if step == selected_step), len(curve) - 1),
        within_budget=bool(run.summary["within_budget"]),
        budget=float(run.resolved["spec"]["evaluation"]["utility_budget"]),
        kept=kept_utility(metrics["after"]) / before if before else 0.0,
        supported=all(finding["holds"] for finding in run.certificate["findings"]),
        references={
            name: (1 - metrics[model]["forget_Q_A_Prob"], kept_utility(metrics[model]))
            for name, model in (("original", "before"), ("retain model", "retain_model"))
            if model in metrics
        },
    )


def _run_scores(run: Certified) -> tuple[Scores, ...]:
    """Scores of forgetting, extraction, utility, and every attack for which recovery is defined."""
    final = {row["id"]: row for row in run.certificate["requests"] if row["half"] == "final"}
    samples = {
        (row["part"], row["id"]): Sample(
            part=row["part"],
            index=0,
            author=int(row["author"]),
            prob=row["probability"],
            prob_normalised=row["probability_normalised"],
            rouge=row["rouge_l_recall"],
            truth_ratio=row["truth_ratio"],
            strength=row["extraction_strength"],
        )
        for row in run.rows
        if row["model"] == "unlearned"
    }
    forgotten = {name: sample for (part, name), sample in samples.items() if part == "forget" and name in final}
    clusters = _clusters(forgotten)
    scores = [
        _mean(FORGETTING, [(clusters[name], 1 - (s.prob or 0.0)) for name, s in forgotten.items()]),
        _mean(EXTRACTION, [(clusters[name], 1 - (s.strength or 0.0)) for name, s in forgotten.items()]),
        _utility([s for s in samples.values() if s.part not in ("forget", "holdout")]),
    ]
    for attack in run.certificate["attacks"]:
        if attack["recovery"]["value"] is not None:
            scores.append(_withstands(attack["name"], final, clusters, run.run_id))
    return tuple(scores)


def _clusters(forgotten: Mapping[str, Sample]) -> dict[str, Cluster]:
    """The cluster of each request: its author, or the request itself if there is only one author."""
    if len({sample.author for sample in forgotten.values()}) > 1:
        return {name: ("author", sample.author) for name, sample in forgotten.items()}
    return {name: ("request", index) for index, name in enumerate(forgotten)}


def _mean(name: str, values: Sequence[tuple[Cluster, float]]) -> Scores:
    return _scores(name, [values], float(np.mean([value for _, value in values])), np.ones(1))


def _utility(samples: Sequence[Sample]) -> Scores:
    """The harmonic mean H of n means: dH/dm = H^2 / (n m^2)."""
    by_mean: dict[str, list[tuple[Cluster, float]]] = {}
    for sample in samples:
        for score, value in kept_scores(sample).items():
            by_mean.setdefault(f"{sample.part}_{score}", []).append(((sample.part, sample.author), value))
    means = np.array([np.mean([value for _, value in values]) for values in by_mean.values()])
    utility = kept_utility(aggregates(samples))
    slope = utility**2 / (len(means) * means**2) if utility else np.zeros(len(means))
    return _scores(UTILITY, list(by_mean.values()), utility, slope)


def _withstands(attack: str, final: Mapping[str, Any], clusters: Mapping[str, Cluster], run: str) -> Scores:
    """1 - R with R = (a - y) / (o - y), a: recall under attack, o: the original's, y: the reference level."""
    try:
        recalls = {name: row["rouge_l_recall_under_attack"][attack] for name, row in final.items()}
    except KeyError:
        raise UserError(
            f"run {run} has no recall of each request under the {attack} attack: an earlier version wrote it",
            fix="run it again with rlx unlearn ... --fresh",
            exit_code=1,
        ) from None
    names = ("attacked", "original", "yardstick")
    values = [[(clusters[name], recall[which]) for name, recall in recalls.items()] for which in names]
    a, o, y = (np.mean([value for _, value in column]) for column in values)
    recovery = (a - y) / (o - y)
    return _scores(f"{WITHSTANDS} {attack}", values, 1 - recovery, np.array([-1, recovery, 1 - recovery]) / (o - y))


def _scores(name: str, columns: Sequence[Sequence[tuple[Cluster, float]]], value: float, slope: Any) -> Scores:
    """A metric by cluster: means of clusters of equal size as they are, other statistics linearised."""
    clusters = sorted({cluster for column in columns for cluster, _ in column})
    row_of = {cluster: row for row, cluster in enumerate(clusters)}
    sums, counts = np.zeros((2, len(clusters), len(columns)))
    for j, column in enumerate(columns):
        for cluster, score in column:
            sums[row_of[cluster], j] += score
            counts[row_of[cluster], j] += 1
    return Scores(
        benchmark=name,
        problem_ids=tuple(f"{part} {index}" for part, index in clusters),
        scores_pn=linearised(float(value), slope, sums, counts)[:, None],
        linearised=len(columns) > 1 or len(set(counts[:, 0])) > 1,
    )
