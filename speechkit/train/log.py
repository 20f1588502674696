"""What a run says: metrics.jsonl, TensorBoard, a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from speechkit.files import atomic_write


def cut_rows(path: Path, updates: int) -> None:
    """Drops the rows of a JSON-lines file that belong to later updates, and a half-written last line."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").split("\n")
    kept = [line for line in lines[:-1] if json.loads(line)["update"] <= updates]
    if kept != lines[:-1] or lines[-1]:
        with atomic_write(path) as file:
            file.writelines(line + "\n" for line in kept)


def cut_samples(path: Path, updates: int) -> None:
    """Drops the sample texts of later updates (`== update N ...` begins each validation's)."""
    if not path.exists():
        return
    kept, keep = [], True
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines(keepends=True):
        if line.startswith("== update "):
            keep = int(line.split()[2]) <= updates
        if keep:
            kept.append(line)
    if "".join(kept) != text:
        with atomic_write(path) as file:
            file.writelines(kept)


def append_row(path: Path, row: dict) -> None:
    """Appends one JSON line with a single write, so that rows of several ranks never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (json.dumps(row, ensure_ascii=False) + "\n").encode())
    finally:
        os.close(descriptor)


class Log:
    """Rows and lines of rank 0; silent on other ranks.

    Args:
        exp: the experiment folder.
        first: whether this is rank 0.
        update: updates made so far; later rows are cut away.
        total: updates of the whole run, for the progress bar.
        tensorboard: write events to `tensorboard/` too.
    """

    def __init__(self, exp: Path, first: bool, update: int, total: int, tensorboard: bool = True) -> None:
        self.exp, self.first = exp, first
        self.writer = self.bar = None
        if not first:
            return
        for name in ("metrics.jsonl", "bad_samples.jsonl", "nonfinite.jsonl"):
            cut_rows(exp / name, update)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(exp / "tensorboard"), purge_step=update + 1)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=update, unit="update", dynamic_ncols=True)

    def line(self, text: str) -> None:
        """Prints one line with the time."""
        if not self.first:
            return
        if self.bar is not None:
            self.bar.write(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr)
        else:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def row(self, row: dict[str, Any], group: str) -> None:
        """Appends to metrics.jsonl, and numbers to TensorBoard under `group/`."""
        if not self.first:
            return
        append_row(self.exp / "metrics.jsonl", row)
        for name, value in row.items() if self.writer is not None else ():
            if isinstance(value, int | float) and name not in ("update", "epoch"):
                self.writer.add_scalar(f"{group}/{name}", value, row["update"])

    def step(self, text: str = "") -> None:
        """Moves the progress bar by one update."""
        if self.bar is not None:
            if text:
                self.bar.set_postfix_str(text, refresh=False)
            self.bar.update()

    def flush(self) -> None:
        """Events of TensorBoard to disk."""
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        """Ends the bar and the events."""
        if self.writer is not None:
            self.writer.close()
        if self.bar is not None:
            self.bar.close()
