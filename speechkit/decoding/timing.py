"""How long decoding takes behind the acoustic encoder: the part in which methods differ."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Stopwatch:
    """Adds up seconds on a device.

    Args:
        device: whose pending work is waited for whenever the time is taken.

    Attributes:
        seconds: between each start and stop so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Starts unless it runs already."""
        if self._since is None:
            self._since = self._now()

    def stop(self) -> None:
        """Stops if it runs."""
        if self._since is not None:
            self.seconds += self._now() - self._since
            self._since = None

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@contextmanager
def runs_after(encoder: nn.Module | None, watch: Stopwatch) -> Iterator[None]:
    """Starts a watch whenever an encoder returns and stops it whenever it is called.

    Args:
        encoder: the acoustic encoder, or None for a model that has none: then nothing happens.
        watch: stopped by the caller when the utterances are done.
    """
    hooks = []
    if encoder is not None:
        hooks.append(encoder.register_forward_pre_hook(lambda *_: watch.stop()))
        hooks.append(encoder.register_forward_hook(lambda *_: watch.start()))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
