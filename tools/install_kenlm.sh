#!/usr/bin/env bash
# Builds kenlm (lmplz, query and the Python module) from its source package on the package index:
# the reference that our n-gram language models are compared with. SpeechKit itself never needs it.
#   tools/install_kenlm.sh [venv]      default venv: tools/venv-decoders (made when missing)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${1:-$here/venv-decoders}
build=$here/build/kenlm
packages=(cmake g++ make libboost-program-options-dev libboost-system-dev libboost-thread-dev libboost-test-dev zlib1g-dev)

missing=()
for package in "${packages[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if ((${#missing[@]})); then
    command -v apt-get >/dev/null || { echo "install_kenlm.sh: please install: ${missing[*]}" >&2; exit 1; }
    as_root=()
    [[ $(id -u) == 0 ]] || as_root=(sudo)
    "${as_root[@]}" apt-get install -y -q "${missing[@]}"
fi

[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
mkdir -p "$build"
if [[ ! -x $build/bin/lmplz ]]; then
    # Without isolation, so that pip does not compile a cmake of its own from source.
    "$venv/bin/python" -m pip install -q setuptools wheel
    "$venv/bin/python" -m pip download -q --no-binary kenlm --no-deps --no-build-isolation -d "$build" kenlm
    tar -xzf "$build"/kenlm-*.tar.gz -C "$build" --strip-components 1
    cmake -S "$build" -B "$build" -DCMAKE_BUILD_TYPE=Release -DENABLE_INTERPOLATE=OFF >"$build/cmake.log"
    cmake --build "$build" --target lmplz query -j "$(nproc)" >>"$build/cmake.log" 2>&1
fi
"$venv/bin/python" -c "import kenlm" 2>/dev/null || "$venv/bin/python" -m pip install -q --no-deps --no-build-isolation "$build"/kenlm-*.tar.gz
echo "install_kenlm.sh: $build/bin/lmplz, and the Python module in $venv"
