#!/usr/bin/env bash
# Installs ESPnet's Python package beside a torch that is already there, for parity tests and benchmarks.
#
# Usage: tools/install_espnet.sh [venv]     (default: .venv of the repository)
#
# ESPnet pins old versions of half the scientific stack; installed without its dependencies, plus the
# few that importing its encoders, decoders and searches needs, it leaves torch and everything else alone.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${1:-$here/.venv}
python=$venv/bin/python

if [ $# -gt 1 ]; then
    echo "usage: tools/install_espnet.sh [venv]" >&2
    exit 2
fi
if [ ! -x "$python" ]; then
    echo "install_espnet: no virtual environment at $venv; make it with: python3 -m venv $venv" >&2
    exit 1
fi

torch_version() { "$python" -c 'import torch; print(torch.__version__.split("+")[0])'; }
if ! before=$(torch_version 2>/dev/null); then
    echo "install_espnet: no torch in $venv; install it first: $venv/bin/pip install torch" >&2
    exit 1
fi

imports='import espnet, espnet2.asr.encoder.conformer_encoder, espnet2.asr.encoder.transformer_encoder, espnet2.asr.ctc, hydra'
if "$python" -c "$imports" 2>/dev/null; then
    echo "install_espnet: already there" >&2
    exit 0
fi

echo "install_espnet: into $venv, torch $before stays" >&2
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
echo "torch==$before" >"$constraints"
"$python" -m pip install --quiet --no-warn-conflicts --no-deps espnet==202511
"$python" -m pip install --quiet --no-warn-conflicts --constraint "$constraints" \
    typeguard humanfriendly librosa torch_complex opt-einsum editdistance configargparse einops \
    hydra-core==1.3.2 pyyaml packaging scipy soundfile

after=$(torch_version)
if [ "$after" != "$before" ]; then
    echo "install_espnet: torch changed from $before to $after; install torch==$before again" >&2
    exit 1
fi
"$python" -c "$imports"
echo "install_espnet: done" >&2
