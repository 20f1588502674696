"""`speechkit report`: RESULTS.md and its pictures from the result.json files below exp."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from speechkit.bin.__main__ import true_or_false


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add = parser.add_argument
    add("--exp", type=Path, default=Path("exp"), help="folder with the systems (default: %(default)s)")
    add("--out", type=Path, default=Path("RESULTS.md"), help="file to write (default: %(default)s)")
    add("--systems", type=Path, help="conf/systems.yaml: order of rows, titles, baseline, what is missing")
    add("--tables", type=Path, nargs="*", default=[], help="JSON files `row: {column: value}`, a table each")
    add("--pictures", type=Path, nargs="*", default=[], help="further PNGs, copied into images/")
    add("--brief", type=Path, help="another file, such as a README, for a short table of the first set")
    add("--baseline", help="`system/how` to compare with (default: the systems file's, or the first row)")
    add("--plots", type=true_or_false, default=True, help="draw pictures into images/ beside the file")


def run(args: argparse.Namespace) -> int | None:
    """Gathers, draws and writes; the file is left alone when nothing in it changes."""
    from speechkit.errors import InputError, nearest
    from speechkit.metrics.brief import brief
    from speechkit.metrics.groups import gather, ordered
    from speechkit.metrics.report import Contents, render
    from speechkit.systems import read_systems

    systems = read_systems(args.systems) if args.systems else None
    planned = _planned(systems)
    rows = ordered(gather(args.exp), [f"{name}/{how}" for name, how in planned], _sets(systems))
    if not rows and not planned:
        raise InputError(f"{args.exp}: no result.json below it; run speechkit score first")
    known = [row.name for row in rows]
    if args.baseline and args.baseline not in known:
        raise InputError(f"--baseline {args.baseline}: no such result{nearest(args.baseline, known)}")
    points = _points(systems, rows)
    contents = Contents(
        rows,
        args.baseline or (systems.baseline if systems else None),
        {name: system.title for name, system in systems.systems.items()} if systems else {},
        _missing(systems, rows),
        [
            *(_draw(rows, points, args.exp, args.out) if args.plots and rows else []),
            *(_bring(path, args.out) for path in args.pictures),
        ],
        args.exp / "test_scorings.jsonl",
        points,
        {path.stem.replace("_", " ").capitalize(): _read_table(path) for path in args.tables},
        _tuned(systems, args.exp),
        _about(systems),
        _sets(systems),
        systems.paper if systems else None,
        systems.expected() if systems else [],
        _dev(args.exp, dict.fromkeys(row.system for row in rows)),
    )
    _write(args.out, render(contents))
    if args.brief and rows:
        _write(args.brief, brief(contents))
    print(f"speechkit report: {args.out}: {len(rows)} rows, {len(contents.missing)} not run", file=sys.stderr)
    return None


def _write(path: Path, block: str) -> None:
    """Puts the generated part into a file, which is left alone when nothing changes."""
    from speechkit.files import write_text
    from speechkit.metrics.report import update

    text = update(path, block)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _planned(systems) -> list[tuple[str, str]]:
    if systems is None:
        return []
    return [(name, how) for name, system in systems.systems.items() for how in system.decodes]


def _about(systems) -> dict:
    """What the systems file says of every planned row."""
    from speechkit.metrics.set_section import About

    about = {}
    for name, how in _planned(systems):
        system = systems.systems[name]
        text = "; ".join(filter(None, dict.fromkeys([system.text, systems.decodes[how].text])))
        about[f"{name}/{how}"] = About(text, system.units or "", system.paper.get(how, {}))
    return about


def _sets(systems, system=None) -> list[str]:
    """Names of all test sets, or of those of one system."""
    paths = (system.test_sets if system else []) or (systems.test_sets if systems else [])
    return [Path(path).name for path in paths]


def _missing(systems, rows) -> list[str]:
    """Lines about planned runs without a result."""
    lines = []
    seeds = {(row.system, row.how, row.set): row.seeds for row in rows}
    for name, how in _planned(systems):
        count = systems.systems[name].seeds or systems.seeds
        for set_name in _sets(systems, systems.systems[name]):
            done = seeds.get((name, how, set_name), [])
            if not done:
                lines.append(f"{name}/{how} on {set_name}: not run, or failed")
            elif len(done) < count:
                lines.append(f"{name}/{how} on {set_name}: {len(done)} of {count} seeds")
    return lines


def _points(systems, rows) -> list:
    """The rows of systems that lie on a curve over labelled speech."""
    from speechkit.metrics.report import Point

    found = {(row.system, row.how, row.set): row for row in rows}
    points = []
    for row in rows:
        system = systems.systems.get(row.system) if systems else None
        if system is not None and system.curve is not None:
            against = found.get((system.against, row.how, row.set))
            points.append(Point(system.curve, system.minutes, row, against))
    return points


def _read_table(path: Path) -> dict[str, dict]:
    from speechkit.errors import InputError
    from speechkit.files import read_json

    table = read_json(path)
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise InputError(f"{path}: expected JSON of rows, each with its columns: {{name: {{column: value}}}}")
    return table


def _tuned(systems, exp: Path) -> dict[str, str]:
    """What every tuned system tried: `cer of seed 0: optim.lr=0.001 40.12, ...; chosen optim.lr=0.002`."""
    from speechkit.files import read_json

    said = {}
    for name, system in systems.systems.items() if systems else ():
        path = exp / name / "tuned.json"
        if system.tune is not None and path.is_file():
            record = read_json(path)
            metric = record["metric"]
            tried = ", ".join(f"{' '.join(row['options'])} {row[metric]:.2f}" for row in record["trials"])
            chosen = " ".join(record["chosen"])
            said[name] = f"{metric} of seed {record['seed']}: {tried}; chosen {chosen}"
    return said


def _dev(exp: Path, names) -> dict[str, str]:
    """Greedy error rates of every system's finished models: `WER 19.42 ± 0.31 (19.2, 19.6)`, by seed."""
    from speechkit.files import read_json
    from speechkit.metrics.groups import mean_sd

    said = {}
    for name in names:
        runs = sorted((exp / name).glob("seed*/final/run.json"), key=lambda path: (len(str(path)), path))
        rates = [
            rate for rate in (read_json(path).get("dev", {}).get("wer") for path in runs) if rate is not None
        ]
        if rates:
            said[name] = f"WER {mean_sd(rates)} ({', '.join(f'{rate:.2f}' for rate in rates)})"
    return said


def _draw(rows, points, exp: Path, out: Path) -> list[tuple[str, str]]:
    """Draws the pictures; caption and relative path of each."""
    from speechkit.metrics import plots, plots_fusion, plots_transfer

    folder = out.parent / "images"
    drawn = [
        *plots.draw_points(points, folder),
        *plots.draw_error_rates(rows, folder),
        *plots.draw_classes(rows, folder),
        *plots.draw_learning_curves(exp, [row.system for row in rows], folder),
        *plots_fusion.draw_gates(exp, [row.system for row in rows], folder),
        *plots_transfer.draw_distances(exp, [row.system for row in rows], folder),
    ]
    return [(caption, f"images/{path.name}") for caption, path in drawn]


def _bring(path: Path, out: Path) -> tuple[str, str]:
    """Copies a picture that another command drew; its caption and relative path."""
    from speechkit.errors import InputError
    from speechkit.files import atomic_write

    if not path.is_file():
        raise InputError(f"{path}: no such picture")
    place = f"images/{path.name}"
    with open(path, "rb") as source, atomic_write(out.parent / place, "wb") as copy:
        shutil.copyfileobj(source, copy)
    return path.stem.replace("_", " ").capitalize(), place
