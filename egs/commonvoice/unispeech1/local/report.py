"""Writes RESULTS.md, PER of each language and their mean: report.py WORK SYSTEMS ...

SYSTEMS are the files that local/systems.py wrote; those of one setting have a row for each model and way of
decoding. Systems without results are left out. The paper's numbers stand in brackets.
"""

import statistics
import sys
from pathlib import Path

from speechkit.errors import InputError
from speechkit.files import read_json, write_text
from speechkit.systems import read_systems

HEAD = """# Common Voice: phone error rates

PER % on an hour of each language, the mean over seeds; in brackets what the paper has (Wang et al., 2021).
"""


def read_rates(work: Path, path: Path) -> dict[str, dict[str, tuple[float, float | None]]]:
    """Row of the table -> language -> PER and the paper's, of the systems in one file."""
    systems, rows = read_systems(path, work), {}
    for name, system in systems.systems.items():
        for how in system.decodes:
            for data in map(Path, systems.test_sets):
                found = sorted(work.glob(f"exp/{name}/seed*/decode_{data.name}_{how}/result.json"))
                if found:
                    rate = statistics.fmean(read_json(result)["rate"] for result in found)
                    row = rows.setdefault(f"{system.title}, {how}", {})
                    row[data.name.split("_")[0]] = rate, system.paper.get(how, {}).get(data.name)
    return rows


def table(rows: dict[str, dict[str, tuple[float, float | None]]]) -> str:
    """A row for each model, a column for each language, and the means of rows that have all of them."""
    languages = sorted({language for row in rows.values() for language in row})
    lines = [f"| model | {' | '.join(languages)} | mean |", "|---" * (2 + len(languages)) + "|"]
    for title, row in rows.items():
        cells = [cell(*row[language]) if language in row else "" for language in languages]
        if len(row) == len(languages):
            rates, papers = zip(*row.values())
            known = None if None in papers else statistics.fmean(papers)
            cells.append(cell(statistics.fmean(rates), known))
        else:
            cells.append("")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(rate: float, paper: float | None) -> str:
    """`14.2 (13.9)`."""
    return f"{rate:.1f}" + (f" ({paper:.1f})" if paper is not None else "")


def report(work: Path, paths: list[Path]) -> None:
    """Joins the targets of a setting (the folder that its files lie in) in one table, and writes all."""
    settings: dict[str, dict] = {}
    for path in paths:
        for title, row in read_rates(work, path).items():
            settings.setdefault(path.parent.name, {}).setdefault(title, {}).update(row)
    if not settings:
        raise InputError(f"{work}/exp: no system of {len(paths)} files has results; run stage 7 first")
    parts = [f"## {name.replace('_', ' ')}\n\n{table(rows)}" for name, rows in settings.items()]
    write_text(work / "RESULTS.md", "\n".join([HEAD, *parts]))


if __name__ == "__main__":
    try:
        report(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
    except (InputError, OSError) as error:
        sys.exit(f"local/report.py: error: {error}")
