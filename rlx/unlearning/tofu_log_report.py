"""Logs of open-unlearning, aggregated again from their per-sample values, with intervals."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

from rlx.benchmarks.tofu.log import EPSILON, read_samples
from rlx.benchmarks.tofu.scores import intervals
from rlx.console import print_out, table

NOTE = (
    "95 % intervals: bootstrap over authors, the questions of one author are drawn together. The p-value of "
    "forget_quality is a step function of D for small n and does not rank models."
)


def print_log(log: Path, retain_log: Path | None, seed: int, form: str) -> None:
    """Print every aggregate of an open-unlearning log with its interval.

    Args:
        log: a ``TOFU_EVAL.json``.
        retain_log: the log of the model that never saw the forget set, for forget quality and privleak.
        seed: seed of the bootstrap.
        form: ``table``, ``markdown``, ``csv`` or ``json``.

    Raises:
        UserError: when a log cannot be read.
    """
    retain = read_samples(retain_log) if retain_log else []
    samples = read_samples(log)
    metrics = intervals(samples, retain, EPSILON, seed)
    counts = {part: sum(s.part == part for s in samples) for part in dict.fromkeys(s.part for s in samples)}
    read = ", ".join(f"{count} {part}" for part, count in counts.items())
    if form == "json":
        record = {name: estimate.plain() for name, estimate in metrics.items()}
        print_out(json.dumps({"log": str(log), "samples": counts, "aggregates": record}, indent=2))
        return
    rows = [[name, _number(e.value), _number(e.low), _number(e.high)] for name, e in metrics.items()]
    heads = ["metric", "value", "low", "high"]
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([heads, *rows])
        print_out(text.getvalue().rstrip())
    elif form == "markdown":
        lines = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * 4, *rows)]
        print_out("\n".join([*lines, "", NOTE]))
    else:
        print_out(table(f"{log.name}: {read}", heads, rows))
        print_out(NOTE)


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else "-"
