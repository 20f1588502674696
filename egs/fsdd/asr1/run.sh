#!/usr/bin/env bash
# Spoken digits of six speakers (Free Spoken Digit Dataset); tested on speakers that training never heard.
#   ./run.sh                                  clones the corpus, then everything
#   ./run.sh --corpus-dir /path/to/a/copy     no download
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0                       # first stage to run
stop_stage=8                  # last stage to run
list_stages=false             # print the stages and stop
force=false                   # make again what is up to date
corpus_dir=                   # a copy of the corpus; empty clones it into downloads/
dev_speaker=yweweler          # kept for choosing checkpoints
test_speaker=george           # kept for the result
train_config=conf/train.yaml  # model and training; differences from the defaults
system=ctc                    # name of the experiment
seed=1                        # seed of the training
jobs=2                        # processes for formatting and features

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seed jobs

exp=exp/$system/seed$seed
test_sets=(dev test)

if stage 0 "download"; then
  [[ -n $corpus_dir ]] || local/download.sh downloads/fsdd
fi

if stage 1 "data preparation"; then
  python local/data.py "${corpus_dir:-downloads/fsdd}" data --dev "$dev_speaker" --test "$test_speaker"
fi

if stage 2 "validate, format audio, features"; then
  speechkit format --data data/train --out dump/train --kind train --jobs "$jobs" --force "$force"
  speechkit features --data dump/train --config conf/features.yaml --cmvn true --jobs "$jobs" --force "$force"
  for set in "${test_sets[@]}"; do
    speechkit format --data "data/$set" --out "dump/$set" --kind evaluation --jobs "$jobs" --force "$force"
    speechkit features --data "dump/$set" --config conf/features.yaml --jobs "$jobs" --force "$force"
  done
fi

if stage 3 "tokens: the ten words"; then
  speechkit tokenizer --text data/train/text --kind word --check data/dev/text --out data/tokens/word \
    --force "$force"
fi

if stage 5 "train"; then
  echo "progress: tail -f $exp/train.log" >&2
  $train_cmd "$exp/train.log" speechkit train --config "$train_config" --train dump/train --dev dump/dev \
    --tokenizer data/tokens/word --cmvn dump/train/cmvn.json --exp "$exp" seed="$seed"
fi

if stage 6 "decode"; then
  $decode_cmd "$exp/log/decode_greedy.log" speechkit decode --model "$exp" --data "${test_sets[@]/#/dump/}" \
    --config conf/decode_greedy.yaml --force "$force"
fi

if stage 7 "score"; then
  for set in "${test_sets[@]}"; do
    speechkit score --data "dump/$set" "$exp/decode_${set}_greedy"
  done
fi

if stage 8 "report: RESULTS.md and plots"; then
  speechkit report --exp exp --out RESULTS.md
fi

finish
