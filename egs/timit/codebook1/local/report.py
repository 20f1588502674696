"""Writes RESULTS.md and images/ from codebook.json of each model: report.py WORK SET MODEL ..."""

import shutil
import sys
from pathlib import Path

from speechkit.errors import InputError
from speechkit.files import atomic_write, read_json, write_text

COLUMNS = {
    "codewords in use": "active",
    "of them seen 10 times or more": "active_often",
    "entropy, nats": "entropy",
    "bits": "entropy_bits",
    "weighted by frequency, nats": "entropy_weighted",
    "seen 10 times or more, nats": "entropy_often",
    "phone purity": "phone_purity",
    "PNMI": "pnmi",
}
HEAD = """# TIMIT: phones and codewords

Entropy is that of the phones given a codeword, the mean over codewords: every codeword counts alike, as many
times as it was seen, or only where it was seen 10 times or more. A codeword seen once has none, so that many
rare codewords lower the first mean. Frames of {set}: {frames}; {phones} phones.
"""


def cell(value: float | None) -> str:
    """A number as it stands in the table."""
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def report(work: Path, part: str, models: list[str]) -> None:
    """Writes the table, with a row and a picture for each model."""
    found = {model: read_json(work / f"exp/{model}/codebook_{part}/codebook.json") for model in models}
    rows = [f"| model | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    pictures, commands = [], []
    for model, values in found.items():
        rows.append(f"| {model} | {' | '.join(cell(values[key]) for key in COLUMNS.values())} |")
        picture = f"images/codebook_{part}_{model}.png"
        with (
            open(work / f"exp/{model}/codebook_{part}/codebook.png", "rb") as source,
            atomic_write(work / picture, "wb") as copy,
        ):
            shutil.copyfileobj(source, copy)
        pictures.append(f"![p(phone given codeword), {model}]({picture})\n")
        commands.append(f"    {values['command']}")
    first = found[models[0]]
    head = HEAD.format(set=part, frames=first["frames"], phones=len(first["phones"]))
    parts = [head, "\n".join(rows) + "\n", *pictures, "Commands:\n", "\n".join(commands) + "\n"]
    write_text(work / "RESULTS.md", "\n".join(parts))


if __name__ == "__main__":
    try:
        report(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    except (InputError, OSError) as error:
        sys.exit(f"local/report.py: error: {error}")
