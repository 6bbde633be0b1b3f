"""Run resolved unlearning experiments: train, select, measure, attack, certify, and compare methods in a table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.console import print_out, table, warn
from rlx.engine.export import save_trained
from rlx.engine.processes import ProcessLayout, rank, run_in_processes, run_worker
from rlx.runs.folder import RunDir, read_json
from rlx.runs.mlflow_settings import mlflow_command
from rlx.runs.recorder import NullRecorder, RunRecorder, complete_tracking
from rlx.runs.stop import STOPPED
from rlx.runs.tracking import tracking_uri
from rlx.specs.reading import validate
from rlx.specs.unlearn import ResolvedUnlearn, UnlearnEvaluation
from rlx.unlearning.build import build_unlearn
from rlx.unlearning.certificate_page import next_step
from rlx.unlearning.display import run_description, unlearn_recorder
from rlx.unlearning.loop import unlearn
from rlx.unlearning.masking import create_key
from rlx.unlearning.outcome import conclude, load_selected
from rlx.unlearning.results import fill_clear_page, request_clear_page, write_results
from rlx.unlearning.strengths import attack_name

Experiment = tuple[ResolvedUnlearn, dict[str, Any]]
"""A resolved experiment and the user's spec."""
FORGET_METRICS: Mapping[str, str] = {
    "forget_Q_A_Prob": "probability of the answer",
    "extraction_strength": "extraction strength",
    "forget_Q_A_ROUGE": "ROUGE-L with the answer",
    "forget_quality_D": "distance from the retain model (D)",
}
"""Metrics of forgetting in words; low values are good in all of them."""
KEPT_METRICS: Mapping[str, str] = {
    "model_utility": "utility",
    "retain_Prob": "probability of retained answers",
    "retain_ROUGE": "ROUGE-L of retained answers",
}
"""Metrics of what must not be forgotten in words; high values are good in all of them."""


def run_unlearn(
    experiments: Sequence[Experiment],
    runs: Path,
    fresh: bool = False,
    layout: ProcessLayout | None = None,
    show_secrets: bool = False,
) -> int:
    """Run experiments one after the other and end with a table and a picture.

    Args:
        experiments: the first is the user's, the others are compared with it.
        runs: folder of all runs.
        fresh: delete earlier results of these runs.
        layout: the processes that share the run; by default this one.
        show_secrets: also write each certificate with the sensitive texts in clear, readable by its owner only.

    Returns:
        The exit code: 0 if all are complete, 130 if stopped.
    """
    layout = layout or ProcessLayout()
    layout.check()
    folders = [RunDir(runs / resolved.run_id) for resolved, _ in experiments]
    for number, ((resolved, content), folder) in enumerate(zip(experiments, folders, strict=True), start=1):
        if len(experiments) > 1 and rank() == 0 and layout.node_rank == 0:
            print(f"method {number} of {len(experiments)}: {resolved.spec.method.name}", file=sys.stderr)
        if fresh and layout.node_rank == 0:
            with folder.locked():
                folder.clear()
        if rank() == 0 and layout.node_rank == 0:
            folder.create(content, resolved.model_dump_json(indent=2))
            create_key(folder.mask_key)
            request_clear_page(folder, show_secrets)
        code = _run_one(resolved, folder, layout)
        if code:
            return code
    if rank() == 0 and layout.node_rank == 0:
        for (resolved, _), folder in zip(experiments, folders, strict=True):
            fill_clear_page(resolved, folder)
        print_summary([resolved for resolved, _ in experiments], folders)
    return 0


def _run_one(resolved: ResolvedUnlearn, folder: RunDir, layout: ProcessLayout) -> int:
    """Run one experiment in this process, or in those that the launcher starts; return the exit code."""

    def is_complete() -> bool:
        if not folder.summary.exists():
            folder.update(resolved.model_dump_json(indent=2))
            return False
        complete_tracking(folder, run_description(resolved), warn, [folder.certificate, folder.certificate_page])
        return True

    return run_in_processes("rlx.unlearning.run", folder, layout, is_complete, lambda: work(resolved, folder))


def work(resolved: ResolvedUnlearn, folder: RunDir) -> int:
    """This process's part of one experiment, up to its certificate; returns the exit code."""
    is_first = rank() == 0
    recorder = unlearn_recorder(resolved, folder) if is_first else NullRecorder()
    status = "FAILED"
    try:
        assembled = build_unlearn(resolved, folder, recorder)
        if isinstance(recorder, RunRecorder):
            recorder.expect(resolved.spec.epochs * assembled.components.updates_per_epoch)
        with assembled.components.stop.handling():
            complete = unlearn(assembled.components)
        status = "FINISHED" if complete else "KILLED"
        if complete:
            selected, within = load_selected(assembled.components)
            save_trained(assembled.components.engine, assembled.components.subject.tokenizer, folder)
            recorder.note(f"checkpoint of update {selected} was selected; measuring and attacking it")
            conclusion = conclude(assembled.components, assembled.loaders, selected, within)
            if isinstance(recorder, RunRecorder):
                write_results(resolved, folder, assembled, conclusion)
                recorder.attach([folder.certificate, folder.certificate_page])
        elif is_first:
            recorder.note(f"stopped; the same command continues from here ({folder.root})")
    finally:
        recorder.close(status)
    return 0 if complete else STOPPED


def print_summary(resolved: Sequence[ResolvedUnlearn], folders: Sequence[RunDir]) -> None:
    """Print the table of methods, draw the plot, and print the paths of the results."""
    summaries = [read_json(folder.summary) for folder in folders]
    aggregates = summaries[0]["aggregates"]
    models = {"original": aggregates["before"], "retain model": aggregates["retain_model"]}
    models |= {summary["method"]: summary["aggregates"]["after"] for summary in summaries}
    budget = resolved[0].spec.evaluation.utility_budget
    for title, metric_names in (
        ("forgotten: final half of the forget set, 95 % intervals over authors; low is good", FORGET_METRICS),
        (f"kept: checkpoints were selected within {budget:.0%} of the original's utility; high is good", KEPT_METRICS),
    ):
        names = [name for name in metric_names if name in aggregates["before"]]
        rows = [[model, *(_cell(metrics[name]) for name in names)] for model, metrics in models.items() if metrics]
        print_out(table(title, ["model", *(metric_names[name] for name in names)], rows))
    for summary in summaries:
        if not summary["within_budget"]:
            print_out(f"{summary['method']}: no checkpoint kept the utility; the last one is shown")
    quality = summaries[0]["aggregates"]["after"]
    if "forget_quality" in quality:
        n = int(quality["forget_quality_n"]["value"])
        lines = [
            f"{s['method']}: p {s['aggregates']['after']['forget_quality']['value']:.3g}, "
            f"D {s['aggregates']['after']['forget_quality_D']['value']:.3f}"
            for s in summaries
        ]
        print_out(f"forget quality (KS, n = {n}; p is a step function of D and does not rank): " + "; ".join(lines))
    _print_attacks(summaries, resolved[0].spec.evaluation)
    for summary in summaries:
        print_out(_verdict(summary))
    draw(summaries, folders[0].picture)
    print_out(f"picture      {folders[0].picture}")
    for folder in folders:
        print_out(f"model        {folder.model}")
        print_out(f"metrics      {folder.metrics}")
        print_out(f"certificate  {folder.certificate_page}")
        if folder.clear_page.exists():
            print_out(f"in clear     {folder.clear_page} (readable by its owner only)")
    if resolved[0].spec.tracker.mlflow:
        print_out(f"MLflow       {mlflow_command(tracking_uri(folders[0].root.parent))}")
    first = summaries[0]
    supported = "supported" if first["verdict"].startswith("supported") else "not supported"
    print_out(f"next         {next_step(first.get('outcome', supported), str(folders[0].root))}")


def _print_attacks(summaries: Sequence[Mapping[str, Any]], settings: UnlearnEvaluation) -> None:
    """Print what each attack brings back, a row for each attack and a column for each method."""
    shares = [{attack["name"]: _recovered(attack) for attack in summary["attacks"]} for summary in summaries]
    names = dict.fromkeys(name for of_method in shares for name in of_method)
    if names:
        rows = [[attack_name(name, settings), *(of_method.get(name, "-") for of_method in shares)] for name in names]
        header = ["attack", *(summary["method"] for summary in summaries)]
        print_out(table("fraction of the lost knowledge that attacks recover; low is good", header, rows))


def draw(summaries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot forgetting against utility, with each method's checkpoints as a line from the original."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots()
    for summary in summaries:
        forgetting, utility = [p[1] for p in summary["curve"]], [p[2] for p in summary["curve"]]
        (line,) = axes.plot(forgetting, utility, marker="o", markersize=3, label=summary["method"])
        selected = [p for p in summary["curve"] if p[0] == summary["selected_step"]]
        axes.plot([p[1] for p in selected], [p[2] for p in selected], "*", markersize=14, color=line.get_color())
    retain = summaries[0]["aggregates"]["retain_model"]
    if retain:
        axes.axvline(1 - retain["forget_Q_A_Prob"]["value"], linestyle=":", color="gray", label="retain model")
    axes.set(xlabel="forgetting: 1 - probability of the forgotten answers (validation half)", ylabel="utility")
    axes.set_title("each point is a checkpoint, the star is the selected one")
    axes.legend()
    fig.savefig(path, dpi=150)


def _verdict(summary: Mapping[str, Any]) -> str:
    """A run's verdict with the number of requests by their verdicts."""
    counts = [f"{number} {status}" for status, number in summary.get("counts", {}).items()]
    earlier = [f"{number} {status}" for status, number in summary.get("earlier_counts", {}).items()]
    lines = [f"{summary['method']}: {summary['verdict']}"]
    lines += [f"  requests: {', '.join(counts)}"] if counts else []
    lines += [f"  requests of earlier runs: {', '.join(earlier)}"] if earlier else []
    return "\n".join(lines)


def _cell(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _recovered(attack: Mapping[str, Any]) -> str:
    share = attack["recovery"]
    if share["value"] is None:
        return "nothing was lost"
    if share["low"] is None:
        return f"{share['value']:.0%} [unknown]"
    return f"{share['value']:.0%} [{share['low']:.0%}, {share['high']:.0%}]"


if __name__ == "__main__":
    run_worker(lambda folder: work(validate(read_json(folder.resolved), ResolvedUnlearn), folder))
