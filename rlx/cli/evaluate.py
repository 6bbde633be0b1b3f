"""`rlx eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlx.cli.options import RunsDir, Seed, Sets, with_named
from rlx.errors import UserError


def evaluate(
    model: Annotated[str, typer.Argument(help="A run, a model folder, a hub id, or embedded.")] = "embedded",
    bench: Annotated[str | None, typer.Option(help="Benchmarks, by comma.")] = None,
    n: Annotated[int | None, typer.Option(help="Samples a problem.")] = None,
    preset: Annotated[str | None, typer.Option(help="Sampling settings: r1, sober, dapo or greedy.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest response.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use only the first so many problems.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Of a run: final, best or a step.")] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Folder of <benchmark>.jsonl files, in place of the hub.")
    ] = None,
    grader: Annotated[str | None, typer.Option(help="A grader's name or file.py:function.")] = None,
    seed: Seed = None,
    sets: Sets = None,
    regrade: Annotated[bool, typer.Option("--regrade", help="Grade stored responses anew, sample nothing.")] = False,
    check: Annotated[bool, typer.Option("--check-benchmarks", help="Check data and golds, and stop.")] = False,
    from_log: Annotated[
        Path | None, typer.Option(help="Aggregate an open-unlearning TOFU_EVAL.json anew, and stop.")
    ] = None,
    retain_log: Annotated[Path | None, typer.Option(help="With it: the retain model's log.")] = None,
    form: Annotated[str, typer.Option("--format", help="table, markdown, csv or json.")] = "table",
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure a model on benchmarks, with error bars. Cut off, the same command goes on."""
    from rlx.errors import did_you_mean
    from rlx.specs.reading import with_sets

    formats = ("table", "markdown", "csv", "json")
    if form not in formats:
        raise UserError(f"--format '{form}' is not known", fix=did_you_mean(form, formats))
    if retain_log and not from_log:
        raise UserError(f"--retain-log is '{retain_log}' without --from-log", fix="add --from-log TOFU_EVAL.json")
    if from_log:
        from rlx.unlearning.tofu_log_report import tell_log

        tell_log(from_log, retain_log, seed or 0, form)
        return
    chosen = [name.strip() for name in bench.split(",") if name.strip()] if bench else None
    named = {
        "model": model,
        "benchmarks": chosen,
        "n": n,
        "preset": preset,
        "max_new_tokens": max_new_tokens,
        "limit": limit,
        "checkpoint": checkpoint,
        "data_dir": data_dir,
        "grader": grader,
        "seed": seed,
    }
    content = with_sets(with_named({}, named), sets or [])
    if check:
        from rlx.evaluation.check import check_benchmarks
        from rlx.registry import names

        raise typer.Exit(check_benchmarks(chosen or names("benchmark"), data_dir, bool(content.get("unpinned"))))

    from rlx.runs.locate import locator
    from rlx.specs.resolve_evaluate import resolve_eval

    resolved = resolve_eval(content, locator(runs_dir))

    from rlx.evaluation.report import tell
    from rlx.evaluation.run import run_eval

    outcomes = run_eval(resolved, anew=regrade)
    if outcomes is None:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130)
    tell(resolved, outcomes, form)
