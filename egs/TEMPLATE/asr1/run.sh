#!/usr/bin/env bash
# A corpus of your own: local/data.py reads it, the stages do the rest (README.md tells how).
#   ./run.sh --corpus-dir /path/to/corpus            everything
#   ./run.sh --stage 5 --stop-stage 7                training, decoding, scoring
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=1                       # first stage to run
stop_stage=8                  # last stage to run
list_stages=false             # print the stages and stop
force=false                   # make again what is up to date
corpus_dir=downloads          # where the corpus lies
train_config=conf/train.yaml  # model and training; differences from the defaults
system=ctc                    # name of the experiment
seed=1                        # seed of the training
jobs=2                        # processes for formatting and features
tokens=char                   # kind of tokens: char, bpe, unigram, word
order=4                       # of the n-gram model

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seed jobs order

exp=exp/$system/seed$seed
test_sets=(dev test)

if stage 1 "data preparation"; then
  python local/data.py "$corpus_dir" data
fi

if stage 2 "validate, format audio, features"; then
  # Only training data may be filtered; dev and test sets are kept whole.
  speechkit format --data data/train --out dump/train --kind train --jobs "$jobs" --force "$force"
  speechkit features --data dump/train --config conf/features.yaml --cmvn true --jobs "$jobs" --force "$force"
  for set in "${test_sets[@]}"; do
    speechkit format --data "data/$set" --out "dump/$set" --kind evaluation --jobs "$jobs" --force "$force"
    speechkit features --data "dump/$set" --config conf/features.yaml --jobs "$jobs" --force "$force"
  done
fi

if stage 3 "tokens, lexicon, language model"; then
  speechkit tokenizer --text data/train/text --kind "$tokens" --check data/dev/text \
    --out "data/tokens/$tokens" --force "$force"
  speechkit ngram train --text data/train/text --ids true --order "$order" --discount-fallback true \
    --out "data/lm/${order}gram.arpa" --force "$force"
  cut -d ' ' -f 2- data/train/text | tr -s ' ' '\n' | grep . | sort -u >data/lm/words
fi

if stage 5 "train"; then
  echo "progress: tail -f $exp/train.log" >&2
  $train_cmd "$exp/train.log" speechkit train --config "$train_config" --train dump/train --dev dump/dev \
    --tokenizer "data/tokens/$tokens" --cmvn dump/train/cmvn.json --exp "$exp" seed="$seed"
fi

if stage 6 "decode"; then
  decode=(speechkit decode --model "$exp" --data "${test_sets[@]/#/dump/}" --force "$force")
  $decode_cmd "$exp/log/decode_greedy.log" "${decode[@]}" --config conf/decode_greedy.yaml
  $decode_cmd "$exp/log/decode_${order}gram.log" "${decode[@]}" --config conf/decode_beam.yaml \
    --how "${order}gram" --lexicon data/lm/words --lm "data/lm/${order}gram.arpa" --tune-on dump/dev
fi

if stage 7 "score"; then
  for set in "${test_sets[@]}"; do
    speechkit score --data "dump/$set" "$exp/decode_${set}_greedy" "$exp/decode_${set}_${order}gram"
  done
fi

if stage 8 "report: RESULTS.md and plots"; then
  speechkit report --exp exp --out RESULTS.md
fi

finish
