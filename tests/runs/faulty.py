"""rlx in a process in which a fault happens at one call of one function: python faulty.py MODULE:FUNCTION N FAULT ...

The fault is a signal to this process, a full disk, or a folder that turns read-only; rlx itself is unchanged.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import time
from pathlib import Path

WORKFLOWS = {"train": "rlx.rl.run", "unlearn": "rlx.unlearning.run", "compare": "rlx.compare.run"}


def happen(fault: str, folder: Path) -> None:
    """Let the fault happen."""
    name, _, twice = fault.partition(" ")
    if name.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, name))
        if twice:
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(20)
    elif fault == "disk full":
        fill(folder / "filler")
    elif fault == "folder read-only":
        for path in sorted(folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o555)
        folder.chmod(0o555)


def fill(file: Path) -> None:
    """Write until the file system has no space, in ever smaller pieces."""
    with file.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    filler.write(b"\0" * size)
            except OSError:
                continue


def install(target: str, call: int, fault: str, folder: Path) -> None:
    """Replace the function in every module that uses it by one with the fault before its call number ``call``."""
    module, _, name = target.partition(":")
    original = getattr(importlib.import_module(module), name)
    calls = [0]

    @functools.wraps(original)
    def faulty(*arguments, **keywords):
        calls[0] += 1
        if calls[0] == call:
            print(f"FAULT {fault}", file=sys.stderr, flush=True)
            happen(fault, folder)
        return original(*arguments, **keywords)

    for user in list(sys.modules.values()):
        if getattr(user, "__name__", "").startswith("rlx.") and vars(user).get(name) is original:
            setattr(user, name, faulty)


def main() -> None:
    """Install the fault and run the command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts processes that ignore it
    target, call, fault, folder, *arguments = sys.argv[1:]
    importlib.import_module(WORKFLOWS[arguments[0]])
    install(target, int(call), fault, Path(folder))
    sys.argv = ["rlx", *arguments]
    from rlx.cli.app import main as rlx

    rlx()


if __name__ == "__main__":
    main()
