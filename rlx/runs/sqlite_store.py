"""MLflow's sqlite store: its path, and a lock while it is created."""

from __future__ import annotations

import fcntl
from pathlib import Path

SQLITE = "sqlite:///"


class one_at_a_time:  # noqa: N801  (reads as a statement: with one_at_a_time(uri))
    """A lock file: several processes that open a new sqlite store at once would damage it."""

    def __init__(self, uri: str) -> None:
        path = sqlite_path(uri)
        self._path = path.with_name(f"{path.name}.lock") if path else None

    def __enter__(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        if self._path is not None:
            self._file.close()


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite URI."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
