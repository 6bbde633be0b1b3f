"""The results of an evaluation as a terminal table, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from rlx.benchmarks.summary import MeanInterval, averages
from rlx.console import print_out, table
from rlx.evaluation.run import EvalOutcome
from rlx.inert import csv_cell, markdown_text
from rlx.specs.evaluate import ResolvedEval

FORMATS = ("table", "markdown", "csv", "json")
COLUMNS = ("benchmark", "problems", "n", "avg@n", "over samples", "pass@n", "maj@n", "best@n*", "tokens", "truncated")
MORE_COLUMNS = ("no answer", "timed out", "seconds")
NOTE = (
    "avg@n with its 95 % interval over problems; over samples: half-width over other samples of the same problems; "
    "best@n* = 1-(1-c/n)^n, with replacement, as papers print it."
)


def print_report(resolved: ResolvedEval, outcomes: Sequence[EvalOutcome], form: str) -> None:
    """Print the outcomes in one format.

    Args:
        resolved: the evaluation.
        outcomes: of its benchmarks.
        form: one of ``FORMATS``.
    """
    if form == "json":
        print_out(json.dumps(as_record(resolved, outcomes), indent=2))
    elif form == "csv":
        print_out(_csv(outcomes).rstrip())
    elif form == "markdown":
        print_out(markdown(outcomes))
    else:
        _terminal(resolved, outcomes)


def markdown(outcomes: Sequence[EvalOutcome]) -> str:
    """A Markdown table with its note."""
    heads = [*COLUMNS, *MORE_COLUMNS]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(map(markdown_text, row))} |" for row in _rows(outcomes)]
    return "\n".join([*lines, "", NOTE])


def as_record(resolved: ResolvedEval, outcomes: Sequence[EvalOutcome]) -> dict[str, object]:
    """All results except the samples, for JSON."""
    return {
        "model": resolved.spec.model,
        "checkpoint": resolved.checkpoint,
        "benchmarks": [
            {
                "protocol": outcome.protocol.record(),
                "folder": str(outcome.folder.root),
                "seconds": round(outcome.seconds, 1),
                "summary": asdict(outcome.summary),
            }
            for outcome in outcomes
        ],
        "averages": {name: asdict(mean) for name, mean in averages([o.summary for o in outcomes]).items()},
    }


def _terminal(resolved: ResolvedEval, outcomes: Sequence[EvalOutcome]) -> None:
    first = outcomes[0].protocol
    how = f"T {first.temperature:g}, top-p {first.top_p:g}, {first.engine_version}, {first.dtype}, seed {first.seed}"
    print_out(
        table(f"{resolved.spec.model} ({resolved.checkpoint}), {how}", COLUMNS, [r[:10] for r in _rows(outcomes)])
    )
    print_out(NOTE)
    for outcome in outcomes:
        summary = outcome.summary
        if summary.n > 2:
            curve = ", ".join(f"{k}: {summary.pass_at[k].value:.1%}" for k in summary.majority)
            print_out(f"{summary.benchmark}: pass@k by k: {curve}")
        reasons = ", ".join(f"{reason} {count}" for reason, count in summary.reasons.items())
        caution = f"; caution: {summary.caution}" if summary.caution else ""
        print_out(
            f"{summary.benchmark}: {summary.no_answer:.1%} without an answer, {summary.timed_out:.1%} timed out in "
            f"grading; decided by {reasons}; {outcome.seconds:.0f} s{caution}"
        )
        print_out(f"{summary.benchmark}: {outcome.folder.root}")


def _rows(outcomes: Sequence[EvalOutcome]) -> list[list[str]]:
    rows = []
    for outcome in outcomes:
        s = outcome.summary
        spread = f"+-{(s.over_samples.high - s.over_samples.low) / 2:.1%}" if s.over_samples else "-"
        rows.append(
            [
                s.benchmark,
                str(s.problems),
                str(s.n),
                _with_interval(s.average),
                spread,
                f"{s.pass_at[s.n].value:.1%}",
                f"{s.majority[s.n]:.1%}",
                f"{s.best_at_n:.1%}",
                f"{s.tokens:.0f}",
                f"{s.truncated:.1%}",
                f"{s.no_answer:.1%}",
                f"{s.timed_out:.1%}",
                f"{outcome.seconds:.0f}",
            ]
        )
    if len(outcomes) > 1:
        for name, mean in averages([outcome.summary for outcome in outcomes]).items():
            rows.append([f"{name} average", "", "", _with_interval(mean), *[""] * 9])
    return rows


def _csv(outcomes: Sequence[EvalOutcome]) -> str:
    """Tidy CSV: one line per benchmark and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["benchmark", "protocol", "problems", "n", "metric", "value"])
    for outcome in outcomes:
        s = outcome.summary
        for metric, value in s.flat().items():
            writer.writerow([csv_cell(s.benchmark), outcome.protocol.digest, s.problems, s.n, metric, f"{value:.6g}"])
    return text.getvalue()


def _with_interval(mean: MeanInterval) -> str:
    return f"{mean.value:.1%} [{mean.low:.1%}, {mean.high:.1%}]"
