#!/usr/bin/env bash
# Sets SpeechKit up (once) and tests it: linters, then pytest.
#   test/run.sh             the fast tests
#   test/run.sh --slow      the others
#   test/run.sh test/shell -k slurm      every other argument goes to pytest
set -euo pipefail
SPEECHKIT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$SPEECHKIT_ROOT"

tools/setup.sh dev
. tools/env.sh

echo "ruff and shellcheck" >&2
ruff check --quiet speechkit test utils egs setup.py
find . \( -name '.?*' -o -path ./tools/build -o -path './tools/venv-*' \) -prune \
  -o -name '*.sh' -print0 | sort -z | xargs -0 shellcheck .ci/run
exec python -m pytest --numprocesses "$(nproc)" --dist loadfile "$@"
