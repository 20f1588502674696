"""Work spread over processes, with results in order and no orphans."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from speechkit.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # pieces of work a process may have waiting


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(parent: int) -> None:
    """Sets up a worker: it ends soon after its parent is gone, however that was killed, and has one thread.

    The workers are as many as the cores; and threads that a forked OpenMP pool believes in are not there.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_parallel(function: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[Result]:
    """Applies a function to every item; yields the results in the items' order.

    Args:
        function: picklable; raises nothing it does not mean to stop everything.
        items: picklable work.
        jobs: processes; 1 works in this one.

    Raises:
        InputError: a process was killed from outside.
    """
    if jobs <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork" if os.name == "posix" else None)
    pool = ProcessPoolExecutor(min(jobs, len(items)), context, _start, (os.getpid(),))
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= AHEAD * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed (out of memory?); run again with fewer --jobs"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
