#!/usr/bin/env bash
# Runs one of Kaldi's data scripts by name: kaldi_name.sh <script> [arguments]. The work is in Python, see
# speechkit/bin/kaldi_names.py; the toolkit's own environment is used where there is one.
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd) || exit 1
python=${SPEECHKIT_VENV:-$root/.venv}/bin/python
[[ -x $python ]] || python=python3
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m speechkit.bin.kaldi_names "$@"
