#!/usr/bin/env bash
# AN4: 50 minutes of spelled names, addresses, dates and numbers by 74 speakers; CTC, attention decoders and transducers.
#   ./run.sh                                        downloads the corpus (64 MB), then everything
#   ./run.sh --corpus-dir /path/to/an4 --methods all  no download, every system
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0                          # first stage to run
stop_stage=8                     # last stage to run
list_stages=false                # print the stages and stop
force=false                      # make again what is up to date
quick=false                      # tiny models, few updates, in quick/: a check of the machinery on a corpus in miniature, no result
corpus_dir=                      # a copy of the corpus, the folder an4; empty downloads it into downloads/
methods="ctc,attention,transducer"  # systems of conf/systems.yaml or patterns, between commas, or all
seeds=1                          # runs of each system
order=4                          # of the n-gram model of words
lanes=1                          # systems trained or decoded at a time
processes=1                      # processes that train one system
jobs=2                           # processes for formatting and features

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seeds order lanes processes jobs

choose_systems .

if stage 0 "download"; then
  [[ -n $corpus_dir ]] || python local/download.py downloads
fi

if stage 1 "data preparation"; then
  python local/data.py "${corpus_dir:-downloads/an4}" "$work/data"
fi

if stage 2 "validate, format audio, features"; then
  speechkit format --data "$work/data/train" --out "$work/dump/train" --jobs "$jobs" --force "$force"
  speechkit features --data "$work/dump/train" --cmvn true --dump false --jobs "$jobs" --force "$force"
  for set in dev test; do
    speechkit format --data "$work/data/$set" --out "$work/dump/$set" --kind evaluation --jobs "$jobs" --force "$force"
  done
fi

if stage 3 "tokens, lexicon, language model"; then
  speechkit tokenizer --text "$work/data/train/text" --kind char --check "$work/data/dev/text" \
    --out "$work/data/tokens/char" --force "$force"
  speechkit ngram train --text "$work/data/train/text" --ids true --order "$order" --discount-fallback true \
    --out "$work/data/lm/ngram.arpa" --force "$force"
  cut -d ' ' -f 2- "$work/data/train/text" | tr -s ' ' '\n' | grep . | LC_ALL=C sort -u >"$work/data/lm/words"
fi

compare_systems "train"
finish
