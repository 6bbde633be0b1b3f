"""Write a comparison in every report format."""

from __future__ import annotations

from pathlib import Path

from rlx.compare.report.html import page
from rlx.compare.report.text import TEXT_RENDERERS, Renderer
from rlx.compare.statistics.comparison import Comparison
from rlx.errors import UserError, reason
from rlx.runs.folder import write_atomically

RENDERERS: dict[str, Renderer] = {**TEXT_RENDERERS, "report.html": page}
"""The renderer of every file of a report."""


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write every file of the report into ``folder``.

    Raises:
        UserError: if the folder cannot be written.
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
