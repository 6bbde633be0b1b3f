"""Why the last attempt at a run failed: failure.json, which is removed when the run continues."""

from __future__ import annotations

import json

from rlx.runs.folder import RunDir, write_atomically


def record_failure(folder: RunDir, command: str, reason: str) -> None:
    """Write why an attempt failed.

    Args:
        folder: the run's.
        command: ``train``, ``unlearn`` or ``eval`` of a study, or ``run`` for a run that was started on its own.
        reason: a sentence.

    Raises:
        OSError: when the file cannot be written.
    """
    write_atomically(folder.failure, json.dumps({"command": command, "reason": reason}, indent=1))


def failure_reason(folder: RunDir) -> str:
    """Why the last attempt failed; empty if it is not known."""
    try:
        return str(json.loads(folder.failure.read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
