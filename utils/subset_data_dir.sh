#!/usr/bin/env bash
# subset_data_dir.sh [--speakers|--shortest|--first|--last|--per-spk] <srcdir> <num-utt> <destdir>
# subset_data_dir.sh [--utt-list <file>|--spk-list <file>] <srcdir> <destdir>
exec "$(dirname "$(readlink -f "$0")")/kaldi_name.sh" subset_data_dir.sh "$@"
