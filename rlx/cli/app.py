"""The application. Each command imports torch and other slow modules in its own function, so `rlx --help` is fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rlx.cli.compare import compare
from rlx.cli.completion import all_methods
from rlx.cli.evaluate import evaluate
from rlx.cli.init import init
from rlx.cli.options import RunsDir
from rlx.cli.runs import runs
from rlx.cli.sample import sample
from rlx.cli.train import train
from rlx.cli.unlearn import unlearn
from rlx.errors import UserError, as_user_error
from rlx.runs.stop import end_at_second_signal


class PlainGroup(TyperGroup):
    """The list of commands, and mistakes in options, in plain text; the help of each command has groups in boxes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "rich_markup_mode": None})


app = typer.Typer(
    name="rlx",
    cls=PlainGroup,
    help="Train, unlearn, evaluate and compare language models: one spec per experiment, one file per method.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(given: bool) -> None:
    if given:
        from rlx.cli.version import version_text

        typer.echo(version_text())
        raise typer.Exit


@app.callback()
def application(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print versions of rlx, torch, transformers and vLLM, and the device.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
) -> None:
    """Train, unlearn, evaluate and compare language models: one spec per experiment, one file per method."""


app.command()(train)
app.command()(unlearn)
app.command(name="eval")(evaluate)
app.command()(compare)
app.command()(sample)
app.command()(init)
app.add_typer(runs, name="runs")


@app.command()
def methods(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Methods to show in full. Default: list all.", autocompletion=all_methods),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot the gradient weights of policy losses to this file (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """List methods, show them in full, or plot their gradient weights."""
    from rlx.console import print_out

    if plot is not None:
        from rlx.methods.gradient_plot import plot_gradient_weights

        plot_gradient_weights(names or [], plot)
        print_out(f"wrote {plot}")
        return
    from rlx.cli.methods import list_methods, show_method

    if not names:
        print_out(list_methods())
        return
    for method in [show_method(name) for name in names]:  # an unknown name is reported before anything is printed
        print_out(method)


@app.command()
def doctor(runs_dir: RunsDir = Path("runs")) -> None:
    """Check Python, packages, devices, memory, disk, vLLM and the hub."""
    from rlx.cli.doctor import print_findings

    raise typer.Exit(print_findings(runs_dir))


def main() -> None:
    """Run the command line; a user's mistake is printed as one sentence on stderr, without a traceback."""
    end_at_second_signal()
    try:
        app()
    except (UserError, OSError) as error:
        mistake = as_user_error(error)
        print(f"rlx: {mistake}", file=sys.stderr)
        sys.exit(mistake.exit_code)
    except KeyboardInterrupt:
        print("rlx: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
