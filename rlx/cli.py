"""The command line. Heavy imports stand inside the commands, so that ``rlx --help`` answers at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlx.errors import UserError

if TYPE_CHECKING:
    from rlx.study_spec import StudySpec

app = typer.Typer(
    name="rlx",
    help="Train, unlearn, evaluate and compare language models: one spec an experiment, one file a method.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of all runs.", envvar="RLX_RUNS_DIR")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the spec; may be repeated.")
]

Jobs = Annotated[int, typer.Option(min=1, help="Runs of a study at once.")]


@app.command()
def train(
    spec: Annotated[Path | None, typer.Argument(help="YAML spec; without one the embedded task is trained.")] = None,
    algo: Annotated[str | None, typer.Option(help="Policy loss: a name, name@preset or file.py:function.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model.")] = None,
    data: Annotated[str | None, typer.Option(help="Prompts: .jsonl, .parquet or hub data set.")] = None,
    steps: Annotated[int | None, typer.Option(help="Rollouts.")] = None,
    seed: Annotated[int | None, typer.Option(help="Every random choice follows from it.")] = None,
    run_name: Annotated[str | None, typer.Option(help="First part of the run folder's name.")] = None,
    sets: Sets = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that accelerate's launcher starts.")] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what this run has done and start anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved experiment and stop.")] = False,
    json_schema: Annotated[bool, typer.Option("--json-schema", help="Print the spec's JSON schema and stop.")] = False,
    jobs: Jobs = 1,
    plan: Annotated[bool, typer.Option("--plan", help="Of a study: show what would be done, and stop.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train a policy by reinforcement learning with verifiable rewards.

    The same spec finds its run again: it is finished if it was cut off, and left alone if it is done. A study (a YAML
    file with axes) has all its runs trained.
    """
    from rlx.spec import Spec
    from rlx.spec_file import read_spec, with_sets

    if json_schema:
        typer.echo(json.dumps(Spec.model_json_schema(), indent=2))
        return
    named = {
        "algorithm.name": algo,
        "model.path": model,
        "data.source": data,
        "steps": steps,
        "seed": seed,
        "run_name": run_name,
    }
    content = read_spec(spec) if spec else {}
    if "axes" in content:
        given = [key for key, value in named.items() if value is not None] + (sets or [])
        if given:
            raise UserError(f"{given[0]} does not go with a study", fix=f"write it in {spec} under base or axes")
        raise typer.Exit(_train_study(content, runs_dir, jobs, plan or dry_run))
    content = with_sets(_with_named(content, named), sets or [])

    from rlx.resolve import resolve

    resolved = resolve(content)
    if dry_run or plan:
        import yaml

        typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False).rstrip())
        return

    from rlx.rundir import RunDir

    folder = RunDir(runs_dir / resolved.run_id)
    if fresh:
        with folder.locked():
            folder.clear()

    from rlx.backends.local import run

    raise typer.Exit(run(resolved, content, folder, processes))


@app.command()
def unlearn(
    spec: Annotated[Path | None, typer.Argument(help="YAML spec; without one the embedded set is forgotten.")] = None,
    method: Annotated[str | None, typer.Option(help="Method: a name, name@preset or file.py:function.")] = None,
    against: Annotated[str | None, typer.Option(help="Methods to lay beside it, by comma; '' for none.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model.")] = None,
    forget: Annotated[str | None, typer.Option(help="JSONL of requests: question and answer, or text.")] = None,
    retain: Annotated[str | None, typer.Option(help="JSONL of questions and answers that must stay.")] = None,
    tofu: Annotated[str | None, typer.Option(help="TOFU split instead: forget01, forget05 or forget10.")] = None,
    retain_model: Annotated[str | None, typer.Option(help="A model that never saw the forget set.")] = None,
    spans: Annotated[str | None, typer.Option(help="auto, given, subject, surprisal or all.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the forget set.")] = None,
    seed: Annotated[int | None, typer.Option(help="Every random choice follows from it.")] = None,
    run_name: Annotated[str | None, typer.Option(help="First part of the run folder's name.")] = None,
    sets: Sets = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what these runs have done and start anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved experiment and stop.")] = False,
    json_schema: Annotated[bool, typer.Option("--json-schema", help="Print the spec's JSON schema and stop.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Make a model forget what a file of requests asks, and write a certificate of what is left.

    Without any argument an embedded model forgets four fictitious authors, by palu, grad_diff and npo.
    """
    from rlx.spec_file import assign, read_spec, with_sets
    from rlx.unlearn_spec import UnlearnSpec

    if json_schema:
        typer.echo(json.dumps(UnlearnSpec.model_json_schema(), indent=2))
        return
    named = {
        "method.name": method,
        "model.path": model,
        "forget.source": f"tofu/{tofu.removeprefix('tofu/')}" if tofu else forget,
        "forget.retain": retain,
        "forget.spans": spans,
        "evaluation.retain_model": retain_model,
        "epochs": epochs,
        "seed": seed,
        "run_name": run_name,
    }
    content = with_sets(_with_named(read_spec(spec) if spec else {}, named), sets or [])

    from rlx.resolve_unlearn import EMBEDDED_AGAINST, resolve_unlearn

    experiments = [(resolve_unlearn(content), content)]
    default = EMBEDDED_AGAINST if experiments[0][0].spec.model.path == "embedded" and method is None else ""
    for other in filter(None, (default if against is None else against).split(",")):
        beside = with_sets(content, [])
        assign(beside, "method", {**content.get("method", {}), "name": other.strip(), "params": {}})
        experiments.append((resolve_unlearn(beside), beside))
    if dry_run:
        import yaml

        for resolved, _ in experiments:
            typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False).rstrip())
        return

    from rlx.backends.unlearn_local import run_unlearn

    raise typer.Exit(run_unlearn(experiments, runs_dir, fresh))


@app.command(name="eval")
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
    seed: Annotated[int | None, typer.Option(help="Every random choice follows from it.")] = None,
    sets: Sets = None,
    regrade: Annotated[bool, typer.Option("--regrade", help="Grade stored responses anew, sample nothing.")] = False,
    check: Annotated[bool, typer.Option("--check-benchmarks", help="Check data and golds, and stop.")] = False,
    form: Annotated[str, typer.Option("--format", help="table, markdown, csv or json.")] = "table",
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure a model on benchmarks, with error bars. Cut off, the same command goes on."""
    from rlx.errors import did_you_mean
    from rlx.spec_file import with_sets

    formats = ("table", "markdown", "csv", "json")
    if form not in formats:
        raise UserError(f"--format '{form}' is not known", fix=did_you_mean(form, formats))
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
    content = with_sets(_with_named({}, named), sets or [])
    if check:
        from rlx.backends.check_benchmarks import check_benchmarks
        from rlx.registry import names

        raise typer.Exit(check_benchmarks(chosen or names("benchmark"), data_dir, bool(content.get("unpinned"))))

    from rlx.resolve_eval import resolve_eval

    resolved = resolve_eval(content, runs_dir)

    from rlx.backends.eval_report import tell
    from rlx.backends.evaluation import run_eval

    outcomes = run_eval(resolved, anew=regrade)
    if outcomes is None:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130)
    tell(resolved, outcomes, form)


@app.command()
def compare(
    targets: Annotated[list[str] | None, typer.Argument(help="A study's YAML file, or runs by folder or name.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Method that the others are tested against.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Runs with this MLflow tag.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Runs of this MLflow experiment.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare runs that were not measured alike.")] = False,
    jobs: Jobs = 1,
    plan: Annotated[bool, typer.Option("--plan", help="Of a study: show what would be done, and stop.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of all reports.")] = Path("reports"),
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Say which method is better, and whether the data allow saying so.

    A study's missing runs are trained and evaluated first; killed, the same command goes on.
    """
    from rlx.compare.command import Places, Request, compare_runs, compare_study, run_study, tell_plan

    places = Places(runs_dir, out)
    studies = [name for name in targets or [] if name.endswith((".yaml", ".yml"))]
    if studies:
        if len(targets or []) > 1 or tag or experiment:
            raise UserError(f"{studies[0]} is a study, and more is named beside it", fix="give the study alone")
        study = _study(Path(studies[0]), baseline)
        if plan:
            tell_plan(study, places, jobs)
            return
        failed = run_study(study, places, jobs)
        compare_study(study, failed, places, force)
        raise typer.Exit(1 if failed else 0)
    if not (targets or tag or experiment):
        raise UserError("nothing is named to compare", fix="give a study, runs, --tag or --experiment")
    logged = []
    if tag or experiment:
        from rlx.compare.load_mlflow import logged_runs

        logged = logged_runs(runs_dir, tag or [], experiment)
    compare_runs(targets or [], logged, Request(baseline, force), places)


def _study(path: Path, baseline: str | None = None) -> StudySpec:
    """The study in a file."""
    from rlx.compare.runner import read_study
    from rlx.spec_file import read_spec

    content = read_spec(path)
    return read_study({**content, "baseline": baseline} if baseline else content)


def _train_study(content: dict[str, Any], runs_dir: Path, jobs: int, plan: bool) -> int:
    """Train a study's runs without a report; the exit code."""
    from rlx.compare.command import Places, run_study, tell_plan
    from rlx.compare.runner import read_study

    study, places = read_study(content), Places(runs_dir, Path("reports"))
    if plan:
        tell_plan(study, places, jobs)
        return 0
    return 1 if run_study(study, places, jobs, measure=False) else 0


@app.command()
def methods(
    names: Annotated[list[str] | None, typer.Argument(help="Show these methods in full.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the gradient weights of policy losses (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """List the methods, show some in full, or draw how hard each pushes a token."""
    from rlx.console import print_out

    if plot is not None:
        from rlx.gradient_plot import plot_gradient_weights

        plot_gradient_weights(names or [], plot)
        print_out(f"wrote {plot}")
        return
    from rlx.methods import list_methods, show_method

    for shown in [show_method(name) for name in names] if names else [list_methods()]:
        print_out(shown)


@app.command()
def doctor(runs_dir: RunsDir = Path("runs")) -> None:
    """Say what this machine can do."""
    from rlx.doctor import doctor as diagnose

    raise typer.Exit(diagnose(runs_dir))


def _with_named(content: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """The content with the named options that were given put on top."""
    from rlx.spec_file import assign, with_sets

    result = with_sets(content, [])
    for key, value in named.items():
        if value is not None:
            assign(result, key, value)
    return result


def main() -> None:
    """Entry point: a person's mistake is one sentence on stderr and an exit code, never a traceback."""
    try:
        app()
    except UserError as error:
        print(f"rlx: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("rlx: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
