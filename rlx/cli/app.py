"""The application. Each command imports torch and other slow modules in its own function, so `rlx --help` is fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlx.cli.compare import compare
from rlx.cli.completion import all_methods
from rlx.cli.evaluate import evaluate
from rlx.cli.options import RunsDir
from rlx.cli.runs import runs
from rlx.cli.sample import sample
from rlx.cli.train import train
from rlx.cli.unlearn import unlearn
from rlx.errors import UserError
from rlx.runs.stop import end_at_second_signal

app = typer.Typer(
    name="rlx",
    help="Train, unlearn, evaluate and compare language models: one spec per experiment, one file per method.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(train)
app.command()(unlearn)
app.command(name="eval")(evaluate)
app.command()(compare)
app.command()(sample)
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
    except UserError as error:
        print(f"rlx: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("rlx: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
