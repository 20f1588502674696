#!/usr/bin/env python3
"""Stage 7: what labels and encoders know of phones, as two tables for RESULTS.md.

    local/quality.py exp

Reads exp/kmeans_report.json (of speechkit kmeans report) and exp/pre_*/seed1/probe_phones.json (of speechkit
probe); writes exp/labels_against_phones.json and exp/linear_phone_probe.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from speechkit.errors import InputError
from speechkit.files import read_json, write_json


def label_rows(report: dict[str, dict]) -> dict[str, dict]:
    """A row for each label set: how pure it is, and how much it says."""
    rows = {}
    for path, found in sorted(report.items(), key=lambda item: "mfcc" not in item[0]):
        rows[Path(path).stem.removeprefix("km_").replace("_", ", ")] = {
            "clusters used": found["labels"],
            "frames": found["frames"],
            "phone purity %": round(100 * found["phone_purity"], 2),
            "cluster purity %": round(100 * found["cluster_purity"], 2),
            "NMI": round(found["nmi"], 4),
            "PNMI": round(found["pnmi"], 4),
        }
    return rows


def probe_rows(probes: dict[str, dict]) -> dict[str, dict]:
    """A row for each encoder: phones told by a linear classifier on every block."""
    return {
        name: {f"block {layer['layer']} %": round(100 * layer["accuracy"], 2) for layer in probe["layers"]}
        | {"most frequent phone %": round(100 * probe["chance"], 2)}
        for name, probe in probes.items()
    }


def main() -> None:
    """Writes both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("exp", type=Path)
    exp = parser.parse_args().exp
    write_json(exp / "labels_against_phones.json", label_rows(read_json(exp / "kmeans_report.json")))
    probes = {
        path.parents[1].name: read_json(path) for path in sorted(exp.glob("pre_*/seed1/probe_phones.json"))
    }
    write_json(exp / "linear_phone_probe.json", probe_rows(probes))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"local/quality.py: error: {error}")
