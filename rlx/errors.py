"""The exception for mistakes that a user can make: what is wrong, and how to fix it."""

import difflib
import errno
import os
from collections.abc import Sequence

from rlx.credentials import without_credentials
from rlx.inert import visible


def public(text: str) -> str:
    """The text as it may be printed and stored: without credentials, and with control characters as escapes."""
    return visible(without_credentials(text))


class UserError(Exception):
    """A mistake in a spec, a file or a command, printed as one sentence without a traceback.

    Args:
        what: what is wrong, naming the key, the value and the choices.
        fix: what to do about it; printed on the same line.
        exit_code: the process's exit code, 2 for a bad request, 1 for a failure on the way.

    Example:
        ``UserError("algorithm.name 'dgop' is not a policy loss", fix="did you mean 'dgpo'? choices: dgpo, grpo")``
    """

    def __init__(self, what: str, fix: str = "", exit_code: int = 2) -> None:
        super().__init__(public(f"{what}; {fix}" if fix else what))
        self.what = public(what)
        self.fix = public(fix)
        self.exit_code = exit_code


DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Errors of a disk that is full, read-only, damaged, or not the user's."""


def as_user_error(error: UserError | OSError) -> UserError:
    """The error as one sentence, also if it is the disk's, at whatever file; other errors are raised again."""
    if isinstance(error, UserError):
        return error
    if error.errno not in DISK_ERRORS:
        raise error
    what = f"{error.filename} cannot be read or written" if error.filename else "a file cannot be written"
    fix = "free space, or correct the folder's permissions; the same command then continues"
    return UserError(f"{what} ({os.strerror(error.errno)})", fix=fix, exit_code=1)


def reason(error: Exception) -> str:
    """The operating system's message of a failed write, if the error has one (safetensors' own does not)."""
    return getattr(error, "strerror", None) or str(error)


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """``did you mean 'dgpo'? choices: dgpo, grpo``, without the question if no choice is similar."""
    near = difflib.get_close_matches(name, choices, n=1)
    question = f"did you mean '{near[0]}'? " if near else ""
    return f"{question}choices: {', '.join(choices) or 'none'}"
