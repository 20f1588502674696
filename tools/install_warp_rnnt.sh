#!/usr/bin/env bash
# Builds warp-rnnt, a CUDA transducer loss. Status 3: it cannot be built on this machine (said why).
set -euo pipefail
python=${PYTHON:?run tools/setup.sh warp-rnnt}

cannot() { echo "setup: warp-rnnt cannot be built here: $*. SpeechKit's own transducer loss is used instead." >&2; exit 3; }

"$python" -c 'import warp_rnnt' 2>/dev/null && { echo "setup: warp-rnnt is there" >&2; exit 0; }
command -v nvcc >/dev/null || cannot "it needs CUDA's compiler nvcc, which is not on PATH"
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || cannot "torch sees no CUDA GPU"
# No build isolation: the extension must be compiled against the torch that is installed here.
"$python" -m pip install --quiet --disable-pip-version-check setuptools wheel
"$python" -m pip install --quiet --disable-pip-version-check --no-build-isolation warp-rnnt \
  || cannot "its build failed; the compiler's messages are above"
"$python" -c 'import warp_rnnt' || cannot "it was built but does not load"
