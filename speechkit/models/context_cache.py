"""What a frozen network makes of each utterance, kept on the disk in half precision.

    record.json        what the network is: of another one nothing is taken
    part<r>.f16        `(rows, D)` float16 of process r, one utterance after the other
    part<r>.jsonl      a line for each: utterance, frames, two sums of its features, first row, rows

Rows are written before their line, so that a line always speaks of rows that are there. An utterance is known
by its id, the number of its frames and both sums: with another speed or other noise it is another one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speechkit.errors import InputError
from speechkit.files import read_json, write_json

TOLERANCE = 1e-6
"""Relative difference of sums that is no difference: they depend on the order of addition."""


class ContextCache:
    """The cache of one process; it reads what all processes left, and adds to its own part.

    Args:
        folder: made when missing.
        network: hash of the network and of all it depends on.
        dim: D.
        rank: number of this process.

    Raises:
        InputError: a folder of another network, or a damaged one.
    """

    def __init__(self, folder: str | Path, network: str, dim: int, rank: int = 0) -> None:
        self.folder, self.dim = Path(folder), dim
        self.folder.mkdir(parents=True, exist_ok=True)
        record, wanted = self.folder / "record.json", {"network": network, "dim": dim}
        if not record.exists():
            write_json(record, wanted)
        found = read_json(record)
        if found != wanted:
            raise InputError(
                f"{self.folder}: a cache of another AV-BERT ({found} instead of {wanted}); delete it, or set "
                "model.fusion.cache to another folder"
            )
        self.known: dict[tuple[str, int], tuple[np.ndarray, str, int, int]] = {}
        self.maps: dict[str, np.ndarray] = {}
        self.part = f"part{rank}"
        self.rows = 0
        for path in sorted(self.folder.glob("part*.jsonl")):
            self._read(path)

    def _read(self, path: Path) -> None:
        """Takes in an index; of the last line of a killed process perhaps only a piece is there."""
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            try:
                utterance, frames, sums, first, rows = json.loads(line)
            except ValueError:
                raise InputError(f"{path}:{number}: damaged; delete {self.folder}") from None
            self.known[utterance, frames] = (np.array(sums), path.stem, first, rows)
            if path.stem == self.part:
                self.rows = max(self.rows, first + rows)
        if path.stem == self.part:
            os.truncate(path, sum(len(line) + 1 for line in lines[:-1]))

    def get(self, utterance: str, features: Tensor) -> Tensor | None:
        """`(N, D)` float16 on the CPU, or None for what is not there."""
        found = self.known.get((utterance, len(features)))
        if found is None or not np.allclose(found[0], _sums(features), rtol=TOLERANCE, atol=1e-9):
            return None
        _, part, first, rows = found
        if part not in self.maps or len(self.maps[part]) < first + rows:
            values = np.memmap(self.folder / f"{part}.f16", np.float16, "r")
            self.maps[part] = values[: len(values) // self.dim * self.dim].reshape(-1, self.dim)
        return torch.from_numpy(np.array(self.maps[part][first : first + rows]))

    def put(self, utterance: str, features: Tensor, values: Tensor) -> None:
        """Keeps `(N, D)` values of the `(T, F)` features that they were made of."""
        sums, rows = _sums(features), len(values)
        with open(self.folder / f"{self.part}.f16", "ab") as file:
            file.truncate(self.rows * self.dim * 2)
            file.write(values.half().cpu().numpy().tobytes())
        with open(self.folder / f"{self.part}.jsonl", "ab") as file:
            line = [utterance, len(features), sums.tolist(), self.rows, rows]
            file.write(json.dumps(line).encode() + b"\n")
        self.known[utterance, len(features)] = (sums, self.part, self.rows, rows)
        self.rows += rows


def _sums(features: Tensor) -> np.ndarray:
    """`(2,)` float64: of `(T, F)` values, and of their products with a number of their own place."""
    values = features.detach().double()
    places = torch.arange(1, len(values) + 1, dtype=torch.float64, device=values.device)[:, None]
    return np.array(torch.stack([values.abs().sum(), (values * places).sum()]).tolist())
