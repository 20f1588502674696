#!/usr/bin/env bash
# utt2spk_to_spk2utt.pl [<utt2spk>] > <spk2utt>
exec "$(dirname "$(readlink -f "$0")")/kaldi_name.sh" utt2spk_to_spk2utt.pl "$@"
