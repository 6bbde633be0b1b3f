"""The command line in this process: its real entry point, without the seconds that imports take."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout

from rlx.cli.app import app
from rlx.errors import UserError


def rlx(*arguments: str) -> tuple[int, str]:
    """The exit code, and everything that was printed."""
    output, before = io.StringIO(), sys.argv
    try:
        with redirect_stdout(output), redirect_stderr(output):
            sys.argv = ["rlx", *arguments]
            try:
                app()
                code = 0
            except SystemExit as ending:
                code = int(ending.code or 0)
            except UserError as error:
                print(f"rlx: {error}", file=output)
                code = error.exit_code
    finally:
        sys.argv = before
    return code, output.getvalue()
