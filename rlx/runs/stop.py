"""Handling of Ctrl-C and SIGTERM: updates are finished, sampling is dropped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """Raised inside ``Stop.interruptible`` when a stop is requested.

    Not an ``Exception``: a reward function of the user's that catches every exception must not catch this one.
    """


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
