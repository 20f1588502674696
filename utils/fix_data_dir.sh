#!/usr/bin/env bash
# fix_data_dir.sh <data-dir> [--max-reject <share>] [any option of speechkit fix]
exec "$(dirname "$(readlink -f "$0")")/kaldi_name.sh" fix_data_dir.sh "$@"
