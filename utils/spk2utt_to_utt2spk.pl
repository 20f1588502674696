#!/usr/bin/env bash
# spk2utt_to_utt2spk.pl [<spk2utt>] > <utt2spk>
exec "$(dirname "$(readlink -f "$0")")/kaldi_name.sh" spk2utt_to_utt2spk.pl "$@"
