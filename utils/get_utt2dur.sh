#!/usr/bin/env bash
# get_utt2dur.sh <data-dir>
exec "$(dirname "$(readlink -f "$0")")/kaldi_name.sh" get_utt2dur.sh "$@"
