"""Writes RESULTS.md from the fate of every clip and the validations of each model: report.py WORK SYSTEMS"""

import json
import sys
from collections import Counter
from pathlib import Path

from speechkit.data.ledger import read_ledger
from speechkit.errors import InputError
from speechkit.files import write_text
from speechkit.systems import read_systems

COLUMNS = {
    "update": "update",
    "perplexity": "perplexity",
    "of sound": "perplexity_audio",
    "of video": "perplexity_video",
    "right, sound": "accuracy_audio",
    "right, video": "accuracy_video",
}
HEAD = """# Kinetics-600: AV-BERT

Clips, and why some are not used:

"""
MODELS = """
Masked clusters of val at the best validation: perplexity, and the share that is told right.

"""


def clips(work: Path) -> list[str]:
    """A table: what became of the listed clips of each set, in both stages that may drop some."""
    lines = ["| set | stage | clips | kept | dropped |", "|---|---|---|---|---|"]
    for name in ("train", "val"):
        for stage, path in (("files", work / "data"), ("frames and sound", work / "dump")):
            fates = read_ledger(path / name / "ledger.jsonl")
            reasons = Counter(fate.reason for fate in fates if not fate.kept)
            dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
            kept = sum(fate.kept for fate in fates)
            lines.append(f"| {name} | {stage} | {len(fates)} | {kept} | {dropped} |")
    return lines


def best(exp: Path) -> dict | None:
    """The validation of lowest perplexity (that of sound, where there is no other); None without any."""
    path = exp / "metrics.jsonl"
    if not path.is_file():
        return None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    known = [row for row in rows if row["kind"] == "dev"]
    return min(known, key=lambda row: row.get("perplexity", row["perplexity_audio"]), default=None)


def models(work: Path, systems: Path) -> list[str]:
    """A row for each model that was trained."""
    lines = [f"| model | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, system in read_systems(systems).systems.items():
        for exp in sorted((work / "exp" / name).glob("seed*")):
            if row := best(exp):
                cells = [row.get(key) for key in COLUMNS.values()]
                texts = ["" if value is None else f"{value:.6g}" for value in cells]
                lines.append(f"| {system.title}, {exp.name} | {' | '.join(texts)} |")
    if len(lines) == 2:
        raise InputError(f"{work / 'exp'}: no model of {systems} was validated; run stage 4 first")
    return lines


def report(work: Path, systems: Path) -> None:
    """Writes the tables, and the pictures that stage 7 left in images/."""
    tables = [
        HEAD,
        *[f"{line}\n" for line in clips(work)],
        MODELS,
        *[f"{line}\n" for line in models(work, systems)],
    ]
    pictures = [f"\n![{path.stem}](images/{path.name})\n" for path in sorted((work / "images").glob("*.png"))]
    write_text(work / "RESULTS.md", "".join([*tables, *pictures]))


if __name__ == "__main__":
    try:
        report(Path(sys.argv[1]), Path(sys.argv[2]))
    except (InputError, OSError) as error:
        sys.exit(f"local/report.py: error: {error}")
