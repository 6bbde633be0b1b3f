"""Run folders that somebody else wrote: code that they name is refused, and links out of them are not written to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.inert import one_line

CODE_KEYS = ("name", "grader")
"""Last parts of the keys of a spec whose value may be ``path/to/file.py:function``."""
REMOTE_CODE = "trust_remote_code"


def links_outside(root: Path) -> Iterator[Path]:
    """Entries of a run folder through which writing would change something else: links out of it, devices, pipes.

    Args:
        root: the run's folder, which may itself be a link that its owner made.
    """
    real = os.path.realpath(root)
    for folder, folders, files in os.walk(root):
        for name in sorted((*folders, *files)):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                target = os.path.realpath(path)
                if os.path.commonpath([real, target]) != real:
                    yield Path(path)
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                yield Path(path)


def refuse_links_outside(root: Path) -> None:
    """Refuse to write a run folder from which a link leads out.

    Raises:
        UserError: naming the first such entry.
    """
    for path in links_outside(root):
        target = f"a link to {os.readlink(path)}" if path.is_symlink() else "a device, pipe or socket"
        raise UserError(
            f"run folder {root} is not written: {path.relative_to(root)} is {target}, which is outside of it",
            fix="replace it by a copy of what it leads to, or remove it",
            exit_code=1,
        )


def code_in_spec(content: Mapping[str, Any]) -> dict[str, str]:
    """The keys of a spec that would run code from elsewhere, with their values.

    Example:
        ``{"method.name": "my_method.py:mine", "model.trust_remote_code": "true"}``
    """
    return dict(_code(content, ""))


def _code(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _code(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _code(inner, key)
    else:
        last = key.rpartition(".")[2]
        if last == REMOTE_CODE and value:
            yield key, "true"
        elif last in CODE_KEYS and isinstance(value, str) and (value.endswith(".py") or ".py:" in value):
            yield key, value


def refuse_code(content: Mapping[str, Any], source: str, trust: bool) -> None:
    """Refuse a spec that comes from a run folder and names code, unless the user trusts it.

    Args:
        content: the spec, without the keys that the user set.
        source: where it comes from, for the error message.
        trust: whether ``--trust`` was given.

    Raises:
        UserError: naming the first key.
    """
    code = {} if trust else code_in_spec(content)
    for key, value in code.items():
        raise UserError(
            f"{source} has {key}={one_line(value)}, whose code would be executed",
            fix="read that code and add --trust, or set the key yourself",
        )
