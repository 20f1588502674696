#!/usr/bin/env bash
# Clones the Free Spoken Digit Dataset (about 30 MB) into the folder given; one that is there is kept.
set -euo pipefail
url=https://github.com/Jakobovski/free-spoken-digit-dataset
folder=${1:?usage: local/download.sh FOLDER}

fail() { echo "$0: error: $*; or give a copy of your own: ./run.sh --stage 1 --corpus-dir /path/to/it" >&2; exit 1; }

[[ -d $folder/recordings ]] && { echo "$folder is there" >&2; exit 0; }
command -v git >/dev/null || fail "git is needed to clone $url: install the package git"
# Cloned beside and renamed, so that an interrupted clone is never taken for the corpus.
rm -rf "$folder.tmp"
mkdir -p "$(dirname "$folder")"
GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=https git clone --quiet --depth 1 "$url" "$folder.tmp" \
  || { rm -rf "$folder.tmp"; fail "cannot clone $url: is there a network?"; }
rm -rf "$folder"
mv "$folder.tmp" "$folder"
