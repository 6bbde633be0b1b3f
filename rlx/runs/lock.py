"""The lock of a run folder, which processes of several machines may share.

The file ``lock`` exists while a process writes the run. It names host, process and start; the process also locks it
with flock, which the system releases when the process ends, however it ends. On a shared file system flock may not
reach other machines, so that the file's existence counts there.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

from rlx.console import warn
from rlx.errors import UserError

TRIES = 20
"""Attempts to take a lock that other processes release or take over at the same moment."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that a lock file names.

    Example:
        ``Holder(host="node3", pid=4711, since="2026-03-01 12:00:05", start="9f2c...:88123")``
    """

    host: str
    pid: int
    since: str
    """Local time at which the lock was taken, for readers."""
    start: str
    """Boot of the host and start of the process, which do not depend on the clock; a process id may be used again."""

    def __str__(self) -> str:
        where = f" on {self.host}" if self.host else ""
        return f"process {self.pid}{where}" + (f" since {self.since}" if self.since else "")

    @property
    def local(self) -> bool:
        """Whether the process is, or was, one of this host; locks of earlier versions name no host."""
        return self.host in ("", socket.gethostname())

    @property
    def alive(self) -> bool:
        """Whether the process of this host still runs."""
        return bool(self.start) and _process_start(self.pid) == self.start


def _process_start(pid: int) -> str:
    """The boot of this host and the start of a process, independent of the clock; empty if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else f"{boot}:{fields[19]}"
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    try:
        return str(psutil.Process(pid).create_time())  # systems without /proc
    except psutil.Error:
        return ""


@contextmanager
def locked(path: Path, run_id: str) -> Iterator[None]:
    """Hold the lock file ``path`` for this process; the file is removed at the end.

    A lock of a dead process of this host is taken over, with a notice.

    Raises:
        UserError: when another process holds it, or one of another host may hold it.
    """
    file = _acquire(path, run_id)
    try:
        yield
    finally:
        with suppress(OSError):  # the folder may be gone or read-only; a lock that stays is stale
            if _same_file(file, path):
                path.unlink()
        file.close()


def take_over(path: Path, run_id: str) -> None:
    """Remove the lock of a process of another host (``--take-over``), which the user knows to have ended.

    Raises:
        UserError: when a process of this host holds it.
    """
    with suppress(FileNotFoundError), path.open("r+", encoding="utf-8") as file:
        holder = _holder(file)
        if not _flock(file) or (holder.local and holder.alive):
            raise _refusal(run_id, holder)
        if not holder.local:
            warn(f"the lock of {holder} on run {run_id} is taken over, as --take-over says")
            path.unlink()


def _acquire(path: Path, run_id: str) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    file = temporary.open("w+", encoding="utf-8")
    try:
        own = Holder(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"), _process_start(os.getpid()))
        json.dump(asdict(own), file)
        file.flush()
        os.fsync(file.fileno())
        _flock(file)
        for _ in range(TRIES):
            if _link(temporary, path) or _replaced_stale(temporary, path, run_id):
                return file
    except BaseException:
        file.close()
        raise
    finally:
        temporary.unlink(missing_ok=True)
    file.close()
    raise UserError(f"the lock {path} changes too often", fix="run the same command again", exit_code=1)


def _link(temporary: Path, path: Path) -> bool:
    """Give the lock its name unless that exists; atomic on shared file systems too."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        temporary.rename(path)
    return True


def _replaced_stale(temporary: Path, path: Path, run_id: str) -> bool:
    """Replace the lock of a dead process of this host; False if the lock changed meanwhile.

    Raises:
        UserError: when the process is alive, or of another host.
    """
    try:
        old = path.open("r+", encoding="utf-8")
    except FileNotFoundError:
        return False
    with old:
        holder = _holder(old)
        free = _flock(old)
        if not _same_file(old, path):
            return False
        if not free or not holder.local or holder.alive:
            raise _refusal(run_id, holder)
        temporary.replace(path)
        if holder.host:
            warn(f"the lock of {holder} on run {run_id} was taken over: that process has ended")
    return True


def _refusal(run_id: str, holder: Holder) -> UserError:
    if holder.local:
        fix = "wait for it, stop it, or start another run with --seed or --run-name"
    else:
        fix = "wait for it; if that process has ended, add --take-over"
    return UserError(f"run {run_id} is being written by {holder}", fix=fix, exit_code=1)


def _holder(file: IO[str]) -> Holder:
    """The process that a lock names; one of earlier versions has only the process id, which flock decides about."""
    text = file.read().strip()
    try:
        content = json.loads(text)
        return Holder(**content) if isinstance(content, dict) else Holder("", int(content), "", "")
    except (ValueError, TypeError):
        return Holder("", -1, "", "")


def _flock(file: IO[str]) -> bool:
    """Lock a file for this process; False if another one has locked it, True also where flock does not exist."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _same_file(file: IO[str], path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def active_holder(path: Path) -> Holder | None:
    """The process that holds a lock file, or may hold it on another host; None if there is none. Changes nothing."""
    try:
        with path.open("r", encoding="utf-8") as file:
            holder = _holder(file)
    except OSError:
        return None
    return holder if holder.alive or not holder.local else None
