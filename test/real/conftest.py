"""Real recordings, from a folder outside of the repository that SPEECHKIT_REAL_DATA names.

Each corpus is a sub-folder with a manifest.tsv: utt_id, audio (path below the sub-folder), speaker,
language, sample_rate, seconds, transcript, split.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from speechkit.bin.__main__ import main
from speechkit.data.kaldi_dir import DataDir, write_data_dir

VARIABLE = "SPEECHKIT_REAL_DATA"


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest, its path made whole."""

    id: str
    path: Path
    speaker: str
    rate: int
    seconds: float
    transcript: str
    split: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are slow: they belong to test/run.sh --slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def corpus() -> Callable[[str], list[Utterance]]:
    """Reads the manifest of a corpus by the name of its folder; the test skips where there is none."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"{VARIABLE} names no folder of real recordings")

    def read(name: str) -> list[Utterance]:
        folder = Path(root) / name
        if not (folder / "manifest.tsv").is_file():
            pytest.skip(f"{folder}/manifest.tsv: no such file")
        with open(folder / "manifest.tsv", encoding="utf-8", newline="") as file:
            return [
                Utterance(
                    row["utt_id"],
                    folder / row["audio"],
                    row["speaker"],
                    int(row["sample_rate"]),
                    float(row["seconds"]),
                    row["transcript"],
                    row["split"],
                )
                for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]

    return read


@pytest.fixture
def data_dir(tmp_path: Path) -> Callable[..., Path]:
    """Writes utterances as a Kaldi data directory; `entries` replaces paths in wav.scp by id."""

    def write(utterances: list[Utterance], name: str, entries: dict[str, str] | None = None) -> Path:
        path = tmp_path / "data" / name
        write_data_dir(
            DataDir(
                path,
                wav={one.id: (entries or {}).get(one.id, str(one.path)) for one in utterances},
                text={one.id: one.transcript for one in utterances if one.transcript},
                # Kaldi sorts speakers and utterances alike, so a speaker's name must begin its utterances'.
                utt2spk={
                    one.id: one.speaker if one.id.startswith(one.speaker) else one.id for one in utterances
                },
            ),
            path,
        )
        return path

    return write


@pytest.fixture
def speechkit() -> Callable[..., None]:
    """Runs a command in this process and insists that it succeeds."""

    def run(*arguments: object) -> None:
        assert main([str(word) for word in arguments]) == 0, arguments

    return run
