"""Handling of Ctrl-C and SIGTERM: updates are finished, sampling is dropped; a second signal ends the process."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

GRACE = 1.0
"""Seconds between a second signal and the end of the process, whatever it is doing then."""
STOPPED = 130
"""Exit code of a run that was stopped, as shells report SIGINT."""


class Interrupted(BaseException):
    """Raised inside ``Stop.interruptible`` when a stop is requested.

    Not an ``Exception``: a reward function of the user's that catches every exception must not catch this one.
    """


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM where no run handles it, so that the process ends as it does after Ctrl-C."""


class Stop:
    """Whether a stop of the run was requested; a second signal stops it at once."""

    def __init__(self) -> None:
        self.requested = False
        self._open = False

    @contextmanager
    def handling(self) -> Iterator[Stop]:
        """Handle SIGINT and SIGTERM within this context (in the main thread)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def interruptible(self, alone: bool) -> Iterator[None]:
        """A context for work that may be dropped: a signal raises ``Interrupted`` in it.

        Args:
            alone: False if other processes would wait for this one; then the signal is only stored.
        """
        if self.requested and alone:
            raise Interrupted
        self._open = alone
        try:
            yield
        finally:
            self._open = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._open:
            self._open = False
            raise Interrupted


def end_at_second_signal() -> None:
    """From now on end this process ``GRACE`` seconds after its second SIGINT or SIGTERM, whatever it is doing then.

    Python calls its handlers between two of its own instructions only. This thread hears of a signal at once, also
    during a long operation of torch, and does not wait for trackers or worker pools to close.
    """
    _end_politely_at_sigterm()
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)

    def watch(sender: socket.socket) -> None:  # the argument keeps the socket open
        count = 0
        while count < 2:
            count += sum(number in (signal.SIGINT, signal.SIGTERM) for number in receiver.recv(64))
        time.sleep(GRACE)
        print("rlx: stopped at once by a second signal", file=sys.stderr, flush=True)
        _kill_children()
        os._exit(STOPPED)

    threading.Thread(target=watch, args=(sender,), daemon=True).start()


def _end_politely_at_sigterm() -> None:
    """Let SIGTERM raise ``Terminated`` in this process; one that it forks ends as without this."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return
    own = os.getpid()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            os._exit(128 + number)
        raise Terminated

    signal.signal(signal.SIGTERM, on_signal)


def stop_children() -> None:
    """Send SIGTERM to the processes that this one has started: runs of a study write a checkpoint and end."""
    import psutil

    for child in psutil.Process().children():
        with suppress(psutil.Error):
            child.terminate()


def _kill_children() -> None:
    """Kill the processes that this one has started, such as workers of rewards and of the launcher."""
    import psutil  # not needed by processes that end as planned

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
