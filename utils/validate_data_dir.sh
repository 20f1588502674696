#!/usr/bin/env bash
# validate_data_dir.sh [--no-feats] [--no-text] [--no-wav] [--no-spk-sort] [--non-print] <data-dir>
exec "$(dirname "$(readlink -f "$0")")/kaldi_name.sh" validate_data_dir.sh "$@"
