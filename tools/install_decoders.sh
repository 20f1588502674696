#!/usr/bin/env bash
# Puts the beam-search decoders that test/bench/bench_search.py compares with into a venv of their own
# (pyctcdecode pins numpy 1.26): pyctcdecode, flashlight-text and the kenlm module both score with.
#   tools/install_decoders.sh [venv]      default venv: tools/venv-decoders
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${1:-$here/venv-decoders}
[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install -q pyctcdecode flashlight-text
"$here/install_kenlm.sh" "$venv"
"$venv/bin/python" - <<'PY'
from importlib.metadata import version

print("install_decoders.sh:", ", ".join(f"{name} {version(name)}" for name in ("pyctcdecode", "flashlight-text", "kenlm")))
PY
