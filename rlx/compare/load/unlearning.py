"""Read unlearning runs as the input of a comparison: every metric by author, so that authors can be resampled.

All metrics are fractions of which more is better, so that benchmarks and unlearning share one set of tests and texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlx.benchmarks.tofu.scores import Sample, aggregates, kept_scores, kept_utility
from rlx.compare.load.folders import method_names, report_metrics
from rlx.compare.load.results import EXTRACTION, FORGETTING, UTILITY, WITHSTANDS, RunResult, Scores, UnlearningResult
from rlx.compare.statistics.significance import linearise
from rlx.errors import UserError
from rlx.runs.folder import RunDir, read_json
from rlx.runs.integrity import Damaged
from rlx.runs.tracking import read_metrics

Cluster = tuple[str, int]
"""A part of the data and the number of an author in it."""


@dataclass(frozen=True, slots=True)
class UnlearnedRun:
    """The files of one finished unlearning run.

    Example:
        ``UnlearnedRun("palu_s0-1f0c", resolved={...}, summary={...}, certificate={...}, samples=[...], metrics=())``
    """

    run_id: str
    resolved: Mapping[str, Any]
    summary: Mapping[str, Any]
    certificate: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    """Rows of samples.parquet, of all models."""
    metrics: tuple[Mapping[str, float], ...]


def is_unlearning(resolved: Mapping[str, Any]) -> bool:
    """Whether a resolved experiment is one of `rlx unlearn`."""
    return "forget" in resolved["spec"]


def read_unlearned_run(folder: RunDir) -> UnlearnedRun:
    """Read the folder of a finished run.

    Raises:
        UserError: if the run is not finished, or its samples were deleted.
    """
    if not folder.summary.is_file():
        raise UserError(
            f"run {folder.run_id} is not finished", fix=f"resume it with rlx unlearn {folder.spec}", exit_code=1
        )
    from rlx.runs.samples import read_samples  # pyarrow is slow to import

    try:
        samples = [row for part in folder.sample_parts() for row in read_samples(part)]
    except Damaged as damage:
        raise UserError(
            f"{damage} in {folder.samples}",
            fix=f"remove {folder.summary} and run rlx unlearn {folder.spec}: it is measured again",
            exit_code=1,
        ) from None
    if not samples:
        raise UserError(
            f"run {folder.run_id} has no samples: they were deleted (rlx unlearn --purge)",
            fix="repeat it with rlx unlearn ... --fresh, or leave it out",
            exit_code=1,
        )
    return UnlearnedRun(
        folder.run_id,
        read_json(folder.resolved),
        read_json(folder.summary),
        read_json(folder.certificate),
        samples,
        tuple(report_metrics(record) for record in read_metrics(folder.metrics)),
    )


def unlearning_results(runs: Sequence[UnlearnedRun], labels: Mapping[str, str] | None = None) -> list[RunResult]:
    """Runs with their metrics on the final half of the forget set and on the kept sets, by author.

    Args:
        runs: the runs.
        labels: names of methods by run id, if a study gives them.
    """
    names = method_names([run.resolved["spec"] for run in runs])
    return [
        RunResult(
            run_id=run.run_id,
            method=(labels or {}).get(run.run_id) or name,
            seed=int(run.resolved["spec"]["seed"]),
            model=str(run.resolved["spec"]["model"]["path"]),
            protocol=_protocol(run.resolved),
            scores=_all_scores(run),
            metrics=run.metrics,
            unlearned=_unlearning_result(run),
        )
        for run, name in zip(runs, names, strict=True)
    ]


def _protocol(resolved: Mapping[str, Any]) -> dict[str, object]:
    """Settings that must be equal for metrics to be comparable: the forget set, its prompts, and the evaluation."""
    spec, fingerprints = resolved["spec"], resolved["fingerprints"]
    forget = {f"forget.{key}": spec["forget"][key] for key in ("source", "retain", "system", "suffix", "chat")}
    forget |= {
        f"forget.{key}": fingerprints[name]
        for key, name in (("source", "forget"), ("retain", "retain"))
        if name in fingerprints
    }
    evaluation = {f"evaluation.{key}": value for key, value in spec["evaluation"].items()}
    others = {key: fingerprints[key] for key in ("tofu", "retain_model") if key in fingerprints}
    return {**forget, **evaluation, **others}


def _unlearning_result(run: UnlearnedRun) -> UnlearningResult:
    metrics = {
        model: {name: estimate["value"] for name, estimate in estimates.items() if estimate["value"] is not None}
        for model, estimates in run.certificate["aggregates"].items()
        if estimates
    }
    curve, selected_step = run.summary["curve"], run.summary["selected_step"]
    before = kept_utility(metrics["before"])
    return UnlearningResult(
        curve=tuple((forgetting, utility) for _, forgetting, utility in curve),
        selected=next((index for index, (step, *_) in enumerate(curve) if step == selected_step), len(curve) - 1),
        within_budget=bool(run.summary["within_budget"]),
        budget=float(run.resolved["spec"]["evaluation"]["utility_budget"]),
        kept=kept_utility(metrics["after"]) / before if before else 0.0,
        supported=_is_supported(run.certificate),
        references={
            name: (1 - metrics[model]["forget_Q_A_Prob"], kept_utility(metrics[model]))
            for name, model in (("original", "before"), ("retain model", "retain_model"))
            if model in metrics
        },
    )


def _is_supported(certificate: Mapping[str, Any]) -> bool:
    """Whether the verdict is positive; certificates without a schema version have no verdict for each request."""
    if "outcome" in certificate:
        return bool(certificate["outcome"] == "supported")
    return all(finding["holds"] for finding in certificate["findings"])


def _all_scores(run: UnlearnedRun) -> tuple[Scores, ...]:
    """Forgetting, extraction, utility, and the resistance to every attack whose recovery is defined."""
    final = {row["id"]: row for row in run.certificate["requests"] if row["half"] != "validation"}
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
        for row in run.samples
        if row["model"] == "unlearned"
    }
    forgotten = {name: sample for (part, name), sample in samples.items() if part == "forget" and name in final}
    clusters = _clusters(forgotten)
    all_scores = [
        _mean(FORGETTING, [(clusters[name], 1 - (s.prob or 0.0)) for name, s in forgotten.items()]),
        _mean(EXTRACTION, [(clusters[name], 1 - (s.strength or 0.0)) for name, s in forgotten.items()]),
        _utility([s for s in samples.values() if s.part not in ("forget", "holdout")]),
    ]
    for attack in run.certificate["attacks"]:
        if attack["recovery"]["value"] is not None:
            all_scores.append(_withstands(attack["name"], final, clusters, run.run_id))
    return tuple(all_scores)


def _clusters(forgotten: Mapping[str, Sample]) -> dict[str, Cluster]:
    """Each request's author; with one author only, each request is its own cluster, as in the split into halves."""
    if len({sample.author for sample in forgotten.values()}) > 1:
        return {name: ("author", sample.author) for name, sample in forgotten.items()}
    return {name: ("request", index) for index, name in enumerate(forgotten)}


def _mean(metric: str, values: Sequence[tuple[Cluster, float]]) -> Scores:
    return _scores(metric, [values], float(np.mean([value for _, value in values])), np.ones(1))


def _utility(samples: Sequence[Sample]) -> Scores:
    """The harmonic mean H of n means: dH/dm = H^2 / (n m^2)."""
    by_mean: dict[str, list[tuple[Cluster, float]]] = {}
    for sample in samples:
        for score, value in kept_scores(sample).items():
            by_mean.setdefault(f"{sample.part}_{score}", []).append(((sample.part, sample.author), value))
    means = np.array([np.mean([value for _, value in values]) for values in by_mean.values()])
    utility = kept_utility(aggregates(samples))
    gradient = utility**2 / (len(means) * means**2) if utility else np.zeros(len(means))
    return _scores(UTILITY, list(by_mean.values()), utility, gradient)


def _withstands(attack: str, final: Mapping[str, Any], clusters: Mapping[str, Cluster], run_id: str) -> Scores:
    """1 - R with R = (a - y) / (o - y): recall under attack (a), of the original (o) and of the reference level (y)."""
    all_recalls = {name: row.get("rouge_l_recall_under_attack", {}).get(attack) for name, row in final.items()}
    # A paraphrase is asked only where the data have one.
    recalls = {name: of_request for name, of_request in all_recalls.items() if of_request is not None}
    if not recalls:
        raise UserError(
            f"run {run_id} was written by an earlier version of rlx and has no recall of each request under the "
            f"{attack} attack",
            fix="repeat it with rlx unlearn ... --fresh",
            exit_code=1,
        )
    names = ("attacked", "original", "yardstick")
    columns = [[(clusters[request], recall[name]) for request, recall in recalls.items()] for name in names]
    a, o, y = (np.mean([value for _, value in column]) for column in columns)
    recovered = (a - y) / (o - y)
    gradient = np.array([-1, recovered, 1 - recovered]) / (o - y)
    return _scores(f"{WITHSTANDS} {attack}", columns, 1 - recovered, gradient)


def _scores(metric: str, columns: Sequence[Sequence[tuple[Cluster, float]]], value: float, gradient_j: Any) -> Scores:
    """A metric by cluster: as it is for a plain mean over clusters of equal size, else linearised.

    Args:
        metric: name of the metric.
        columns: for each mean that enters the metric, the values with their clusters.
        value: the metric.
        gradient_j: its derivative with respect to each mean.
    """
    clusters = sorted({cluster for column in columns for cluster, _ in column})
    index = {cluster: row for row, cluster in enumerate(clusters)}
    sums_pj, counts_pj = np.zeros((2, len(clusters), len(columns)))
    for j, column in enumerate(columns):
        for cluster, entry in column:
            sums_pj[index[cluster], j] += entry
            counts_pj[index[cluster], j] += 1
    return Scores(
        benchmark=metric,
        problem_ids=tuple(f"{part} {number}" for part, number in clusters),
        scores_pn=linearise(float(value), gradient_j, sums_pj, counts_pj)[:, None],
        linearised=len(columns) > 1 or len(set(counts_pj[:, 0])) > 1,
    )
