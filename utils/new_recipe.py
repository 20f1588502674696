#!/usr/bin/env python3
"""Makes a recipe for a new corpus: new_recipe.py <corpus> <task> copies egs/TEMPLATE to egs/<corpus>/<task>.

    utils/new_recipe.py yoruba asr1

The task's letters choose the template (asr1 -> egs/TEMPLATE/asr1). Exit status 2 when a name cannot be one or
the recipe exists already; nothing is overwritten.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

EGS = Path(__file__).resolve().parents[1] / "egs"
# What running a recipe leaves behind; never part of a copy.
LEFT_BEHIND = shutil.ignore_patterns(
    "data", "dump", "exp", "downloads", "__pycache__", ".*", "RESULTS.md", "images"
)


def fail(message: str) -> int:
    print(f"new_recipe.py: error: {message}", file=sys.stderr)
    return 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("corpus", help="lower-case name of the corpus, such as yoruba or common_voice")
    parser.add_argument("task", help="task and variant number, such as asr1")
    parser.add_argument("--egs", type=Path, default=EGS, help="folder of the recipes (default: %(default)s)")
    args = parser.parse_args()
    tasks = sorted(path.name for path in (EGS / "TEMPLATE").iterdir() if path.is_dir())
    if not re.fullmatch(r"[a-z][a-z0-9_]*", args.corpus):
        return fail(f"corpus '{args.corpus}': use lower-case letters, digits and _ only")
    match = re.fullmatch(r"([a-z]+)[1-9][0-9]*", args.task)
    template = next((EGS / "TEMPLATE" / task for task in tasks if match and task == f"{match[1]}1"), None)
    if template is None:
        return fail(f"task '{args.task}': no template; there is {', '.join(tasks)}")
    target = args.egs / args.corpus / args.task
    if target.exists():
        return fail(f"{target} exists already")
    temporary = target.with_name(f".{args.task}.{os.getpid()}.tmp")
    try:
        shutil.copytree(template, temporary, ignore=LEFT_BEHIND)
        readme = temporary / "README.md"
        readme.write_text(readme.read_text().replace("<corpus>", args.corpus).replace("<task>", args.task))
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        return fail(f"{target}: {error.strerror}")
    print(f"{target}: now write {target / 'local/data.py'}, then {target / 'run.sh'} --corpus-dir ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
