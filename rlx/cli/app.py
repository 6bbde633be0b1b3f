"""The command line. Heavy imports stand inside the commands, so that ``rlx --help`` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlx.cli.compare import compare
from rlx.cli.evaluate import evaluate
from rlx.cli.options import RunsDir
from rlx.cli.train import train
from rlx.cli.unlearn import unlearn
from rlx.errors import UserError

app = typer.Typer(
    name="rlx",
    help="Train, unlearn, evaluate and compare language models: one spec an experiment, one file a method.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.command()(train)
app.command()(unlearn)
app.command(name="eval")(evaluate)
app.command()(compare)


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
        from rlx.methods.gradient_plot import plot_gradient_weights

        plot_gradient_weights(names or [], plot)
        print_out(f"wrote {plot}")
        return
    from rlx.cli.methods import list_methods, show_method

    for shown in [show_method(name) for name in names] if names else [list_methods()]:
        print_out(shown)


@app.command()
def doctor(runs_dir: RunsDir = Path("runs")) -> None:
    """Say what this machine can do."""
    from rlx.cli.doctor import doctor as diagnose

    raise typer.Exit(diagnose(runs_dir))


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
