"""`rlx sample`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlx.cli.completion import models, rewards
from rlx.cli.options import OUTPUT, RUN, RunsDir, Seed, Trust
from rlx.errors import UserError

if TYPE_CHECKING:
    from rlx.evaluation.sample import SampledResponse
    from rlx.runs.browse import SampleColumns
    from rlx.runs.samples import Row

SHOWN_CHARACTERS = 600
"""Length of a stored text in ``--browse`` (characters)."""


def sample(
    model: Annotated[
        str,
        typer.Argument(help="A run (folder or name), a model folder, a hub id, or embedded.", autocompletion=models),
    ],
    prompt: Annotated[str | None, typer.Argument(help="The question, as in the data; '-' reads it from stdin.")] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n", min=1, help="Number of responses (default 4), or of samples a list (5).", rich_help_panel=RUN
        ),
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="Gold answer: show the reward of each response.", rich_help_panel=RUN)
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="Reward for --answer. Default: the rewards of the run.", rich_help_panel=RUN, autocompletion=rewards
        ),
    ] = None,
    at: Annotated[
        str,
        typer.Option(
            metavar="CHECKPOINT", help="Checkpoint of a run: final, best, or a step such as 40.", rich_help_panel=RUN
        ),
    ] = "final",
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="Softmax temperature; 0 is greedy. Default: that of training.", rich_help_panel=RUN),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maximum length of a response (tokens). Default: that of training.", rich_help_panel=RUN
        ),
    ] = None,
    seed: Seed = None,
    trust: Trust = False,
    browse: Annotated[
        bool,
        typer.Option(
            "--browse",
            help="Show the run's stored samples: worst, best, and changed between steps.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Sample responses of a model to a prompt, in the chat template and with the settings of its training."""
    if browse:
        if prompt is not None:
            raise UserError("--browse shows stored samples and takes no prompt", fix="leave one of them out")
        _browse(model, n or 5, runs_dir)
        return
    if prompt is None:
        raise UserError("there is no prompt", fix='give one: rlx sample RUN "47+85=", or --browse for stored samples')
    text = typer.get_text_stream("stdin").read().rstrip("\n") if prompt == "-" else prompt
    from rlx.runs.check import matching_run
    from rlx.runs.folder import runs_in

    if not Path(model).exists() and any(run.run_id.startswith(model) for run in runs_in(runs_dir)):
        model = str(matching_run(model, runs_dir).root)
    from rlx.console import loading

    loading("torch and transformers")
    from rlx.evaluation.sample import SampleRequest, sample_responses

    request = SampleRequest(
        model=model,
        prompt=text,
        n=n or (1 if temperature == 0 else 4),
        checkpoint=str(int(at[5:])) if at.startswith("step_") and at[5:].isdecimal() else at,
        answer=answer,
        reward=reward,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        seed=seed or 0,
        trust=trust,
    )
    _print_responses(sample_responses(request, runs_dir))


def _print_responses(responses: Sequence[SampledResponse]) -> None:
    from rlx.console import print_out

    for number, sampled in enumerate(responses, start=1):
        end = "" if sampled.response.finished else ", cut off at the maximum length"
        facts = [f"{len(sampled.response.tokens)} tokens{end}"]
        if sampled.reward is not None:
            facts.insert(0, f"reward {sampled.reward:.3f}")
        for label, verdict in sampled.verdicts.items():
            extracted = "" if verdict.extracted is None else f", read as {verdict.extracted!r}"
            facts.append(f"{label}: {verdict.score:g} ({verdict.reason}{extracted})")
        print_out(f"--- response {number}: {'; '.join(facts)}")
        print_out(sampled.text)


def _browse(name: str, count: int, runs_dir: Path) -> None:
    """Print the worst, the best and the changed samples of a run."""
    from rlx.console import print_out
    from rlx.runs.browse import changes, extremes, stored_samples
    from rlx.runs.check import matching_run

    run = matching_run(name, runs_dir)
    rows, columns = stored_samples(run)
    print_out(f"{len(rows)} stored samples of {run.run_id}, by {columns.value}")
    lowest, highest = extremes(rows, columns, count)
    for title, selected in (("lowest", lowest), ("highest", highest)):
        print_out(f"\n=== {title} {columns.value}")
        for row in selected:
            _print_row(row, columns)
    changed = changes(rows, columns, count)
    first = columns.time
    print_out(f"\n=== changed between the first and the last {first}")
    if not changed:
        print_out(f"no prompt was stored at two values of {first} with different {columns.value}")
    for change in changed:
        print_out(f"--- {change.prompt}: {columns.value} {change.difference:+.3f}")
        for part in (change.before, change.after):
            print_out(f"{first} {part[0][first]}: {_shortened(str(part[0][columns.text]))}")


def _print_row(row: Row, columns: SampleColumns) -> None:
    from rlx.console import print_out

    gold = f", gold {row['gold']}" if row.get("gold") is not None else ""
    reason = f", {row['reason']}" if row.get("reason") else ""
    value = float(row[columns.value] or 0)
    print_out(f"--- {columns.value} {value:.3f}{reason}, {columns.time} {row[columns.time]}{gold}")
    print_out(f"{_shortened(str(row[columns.prompt]))}\n> {_shortened(str(row[columns.text]))}")


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
