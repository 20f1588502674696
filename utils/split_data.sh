#!/usr/bin/env bash
# split_data.sh [--per-utt] <data-dir> <num-to-split>
exec "$(dirname "$(readlink -f "$0")")/kaldi_name.sh" split_data.sh "$@"
