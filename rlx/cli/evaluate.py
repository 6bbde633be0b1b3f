"""`rlx eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlx.cli.completion import benchmarks, models, rewards
from rlx.cli.options import OUTPUT, RUN, SCALE, Overrides, Preview, RunsDir, Seed, TakeOver, Trust
from rlx.cli.preview import skip_unused_imports
from rlx.cli.run_spec import apply_options_and_overrides
from rlx.errors import UserError, did_you_mean

FORMATS = ("table", "markdown", "csv", "json")


def evaluate(
    model: Annotated[
        str,
        typer.Argument(help="A run (folder or name), a model folder, a hub id, or embedded.", autocompletion=models),
    ] = "embedded",
    bench: Annotated[
        str | None,
        typer.Option(
            help="Benchmarks, separated by commas. Default: arithmetic for the embedded model.",
            rich_help_panel=RUN,
            autocompletion=benchmarks,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Your own questions: a .jsonl or .parquet file; --set data.prompt and data.answer name columns.",
            rich_help_panel=RUN,
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option(help="Samples per problem. Default: that of --preset.", rich_help_panel=RUN)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Sampling settings: r1, sober, dapo or greedy. Default: r1.", rich_help_panel=RUN),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="Maximum length of a response (tokens). Default: that of --preset.", rich_help_panel=RUN),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Number of problems to use, from the first one. Default: all.", rich_help_panel=RUN),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Checkpoint of a run: final, best, or a step number. Default: final.", rich_help_panel=RUN),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(help="Folder of BENCHMARK.jsonl files to read instead of the hub.", rich_help_panel=RUN),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that share the problems, each with the model on its own GPU.",
            rich_help_panel=SCALE,
        ),
    ] = 1,
    grader: Annotated[
        str | None,
        typer.Option(
            help="Grader: a reward's name or file.py:function. Default: the benchmark's own.",
            rich_help_panel=RUN,
            autocompletion=rewards,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Prompt template with {problem} in it. Default: the benchmark's own.", rich_help_panel=RUN),
    ] = None,
    seed: Seed = None,
    overrides: Overrides = None,
    regrade: Annotated[
        bool,
        typer.Option("--regrade", help="Grade the stored responses again; sample nothing.", rich_help_panel=RUN),
    ] = False,
    take_over: TakeOver = False,
    trust: Trust = False,
    preview: Preview = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check-benchmarks",
            help="Check the benchmarks' data and gold answers, and stop.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    from_log: Annotated[
        Path | None,
        typer.Option(help="Aggregate an open-unlearning TOFU_EVAL.json, and stop.", rich_help_panel=OUTPUT),
    ] = None,
    retain_log: Annotated[
        Path | None,
        typer.Option(help="With --from-log: the TOFU_EVAL.json of the retain model.", rich_help_panel=OUTPUT),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="Form of the results: table, markdown, csv or json.", rich_help_panel=OUTPUT)
    ] = "table",
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Evaluate a model on benchmarks, with confidence intervals.

    If the evaluation is interrupted, the same command resumes it.
    """
    if form not in FORMATS:
        raise UserError(f"--format '{form}' is not known", fix=did_you_mean(form, FORMATS))
    if retain_log and not from_log:
        raise UserError(f"--retain-log is '{retain_log}' without --from-log", fix="add --from-log TOFU_EVAL.json")
    if from_log:
        from rlx.unlearning.tofu_log_report import print_log

        print_log(from_log, retain_log, seed or 0, form)
        return
    bench_names = [name.strip() for name in bench.split(",") if name.strip()] if bench else None
    options = {
        "model": model,
        "benchmarks": bench_names,
        "data.source": data,
        "n": n,
        "preset": preset,
        "max_new_tokens": max_new_tokens,
        "limit": limit,
        "checkpoint": checkpoint,
        "data_dir": data_dir,
        "grader": grader,
        "prompt": prompt,
        "seed": seed,
        "trust_remote_code": True if trust else None,
    }
    content = apply_options_and_overrides({}, options, overrides or [])
    if check:
        if content.get("data"):
            raise UserError(
                "--check-benchmarks does not read --data", fix="use --data FILE --preview, which grades gold answers"
            )
        from rlx.evaluation.check import check_benchmarks
        from rlx.registry import names

        raise typer.Exit(check_benchmarks(bench_names or names("benchmark"), data_dir, bool(content.get("unpinned"))))

    if preview:
        skip_unused_imports()
    from rlx.console import loading

    loading("torch and transformers")
    from rlx.evaluation.report import print_report
    from rlx.evaluation.run import run_eval
    from rlx.runs.folder import RunDir
    from rlx.runs.locate import locator
    from rlx.specs.resolve_evaluate import resolve_eval

    resolved = resolve_eval(content, locator(runs_dir))
    if preview:
        from rlx.evaluation.preview import preview_eval

        raise typer.Exit(preview_eval(resolved, processes))
    if take_over:
        for folder in RunDir(Path(resolved.folder)).evaluations():
            RunDir(folder.root).take_over()
    outcomes = run_eval(resolved, regrade, processes)
    if outcomes is None:
        print("stopped; run the same command again to resume", file=sys.stderr)
        raise typer.Exit(130)
    print_report(resolved, outcomes, form)
