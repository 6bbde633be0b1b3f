"""One comparison to every rendering of it."""

from __future__ import annotations

from pathlib import Path

from rlx.compare.report.html import page
from rlx.compare.report.text import FILES, Renderer
from rlx.compare.statistics.comparison import Comparison
from rlx.errors import UserError, reason
from rlx.runs.folder import write_atomically

RENDERERS: dict[str, Renderer] = {**FILES, "report.html": page}
"""Every file of a report and what writes it."""


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write every rendering into ``folder``.

    Raises:
        UserError: when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, render in RENDERERS.items():
            write_atomically(folder / name, render(comparison))
    except OSError as error:
        raise UserError(
            f"the report cannot be written to {folder} ({reason(error)})",
            fix="free some space or choose another folder with --out",
            exit_code=1,
        ) from None
    return [folder / name for name in RENDERERS]
