"""Requests to stop, and stacks of a process that hangs."""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import sys
import time

STOPPED = 75
"""Exit status after a saved stop (EX_TEMPFAIL: run the same command again)."""


class StopRequest:
    """Remembers SIGTERM, SIGUSR1 and Ctrl-C until the loop has finished its step.

    A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._old: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self._old[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            os.write(2, b"\nspeechkit train: stopped at once, nothing saved since the last checkpoint\n")
            os._exit(130)
        if self.signal is None:
            again = " (Ctrl-C again: stop at once)" if number == signal.SIGINT else ""
            name = signal.Signals(number).name
            os.write(2, f"\nspeechkit train: {name}: saving after this step{again}\n".encode())
        self.signal = number


class Watchdog:
    """Prints every thread's stack and ends the process when nothing moves for too long.

    Args:
        seconds: how long without `feed` is too long; 0 switches it off.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self._fed = seconds, -math.inf

    def __enter__(self) -> Watchdog:
        self.feed()
        return self

    def __exit__(self, *exception: object) -> None:
        faulthandler.cancel_dump_traceback_later()

    def feed(self) -> None:
        """Says that the process is alive."""
        now = time.monotonic()
        # Setting the alarm stops and starts a thread: not for every update.
        if self.seconds and now - self._fed > min(1.0, self.seconds / 10):
            self._fed = now
            faulthandler.dump_traceback_later(self.seconds, exit=True, file=sys.__stderr__)
