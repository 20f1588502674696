#!/usr/bin/env bash
# copy_data_dir.sh [--utt-prefix=<p>] [--spk-prefix=<p>] [--utt-suffix=<s>] [--spk-suffix=<s>] <srcdir> <destdir>
exec "$(dirname "$(readlink -f "$0")")/kaldi_name.sh" copy_data_dir.sh "$@"
