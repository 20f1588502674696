#!/usr/bin/env bash
# Pre-training on speech without text, then CTC on little labelled speech: wav2vec 2.0, HuBERT, two languages.
#   ./run.sh                          everything: the corpus of ../asr1, pre-training, curves over labelled speech
#   ./run.sh --quick true             one seed, the smallest budget, log-mel features only; in quick/
#   ./run.sh --stage 5 --stop-stage 7 fine-tuning, decoding, scoring
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0              # first stage to run
stop_stage=8         # last stage to run
list_stages=false    # print the stages and stop
force=false          # make again what is up to date
quick=false          # fewer systems, one seed and shorter trainings, in quick/
corpus=full          # "small": the quick corpus of ../asr1, too little to learn from; checks the machinery
methods=all          # comma-separated systems of conf/systems.yaml
seeds=               # seeds per system; empty takes the number in conf/systems.yaml
lanes=2              # trainings at a time, which share the cores
jobs=2               # processes for synthesis, formatting, features and labels
second=800           # utterances of the second language

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage lanes jobs second

work=. systems=conf/systems.yaml budgets=(5 15 50)
[[ $quick != true ]] || { work=quick systems=conf/systems_quick.yaml budgets=(5); }
sibling=../asr1 corpus_options=(--unlabelled true --jobs "$jobs" --force "$force")
[[ $corpus != small ]] || { sibling=../asr1/quick work=quick/small second=40; corpus_options+=(--quick true); }
matrix=(speechkit matrix --systems "$systems" --work "$work" --methods "$methods" ${seeds:+--seeds "$seeds"} \
  --force "$force")

if stage 0 "synthesise: the corpus of mini_en/asr1, a second language"; then
  ../asr1/run.sh --stage 0 --stop-stage 0 "${corpus_options[@]}"
  python local/second_language.py --out "$work/downloads/second_language" --count "$second" --jobs "$jobs" \
    --force "$force"
fi

if stage 1 "data preparation: the sets of mini_en/asr1, phones of every frame, the second language"; then
  ../asr1/run.sh --stage 1 --stop-stage 2 "${corpus_options[@]}"
  python local/data.py "$sibling" "$work/downloads/second_language" "$work"
  python local/phones.py "$sibling/downloads/mini_en" "$work/dump" dev test --jobs "$jobs"
fi

if stage 2 "validate, format audio, features; nested parts of the labelled speech"; then
  for set in unlabelled second_language; do
    speechkit format --data "$work/data/$set" --out "$work/dump/$set" --jobs "$jobs" --force "$force"
    speechkit features --data "$work/dump/$set" --cmvn true --jobs "$jobs" --force "$force"
  done
  for minutes in "${budgets[@]}"; do
    speechkit subset "$work/dump/train" "$work/dump/train_${minutes}min" --minutes "$minutes" --seed 1 \
      --force "$force"
  done
fi

if stage 3 "tokens"; then
  speechkit tokenizer --text "$work/dump/train/text" --kind char --check "$work/dump/dev/text" \
    --out "$work/data/tokens/char" --force "$force"
fi

if stage 4 "pre-train: labels of MFCCs, then every system, with the labels of HuBERT's second iteration"; then
  speechkit kmeans train --data "$work/dump/unlabelled" --out "$work/data/kmeans_mfcc" --clusters 100 \
    --jobs "$jobs" --force "$force" name=mfcc use_energy=false deltas=2
  speechkit kmeans apply --model "$work/data/kmeans_mfcc" --data "$work"/dump/{unlabelled,dev,test} --name mfcc \
    --jobs "$jobs" --force "$force"
  "${matrix[@]}" --stage 4 --lanes "$lanes"
fi

if stage 5 "fine-tune, and train from scratch with a learning rate chosen on dev"; then
  "${matrix[@]}" --stage 5 --lanes "$lanes"
fi

if stage 6 "decode"; then
  "${matrix[@]}" --stage 6 --lanes "$lanes"
fi

if stage 7 "score; what labels and layers know of phones"; then
  "${matrix[@]}" --stage 7
  speechkit kmeans report --labels "$work"/dump/test/km_*.txt --phones "$work/dump/test/phones.txt" \
    --out "$work/exp/kmeans_report.json"
  for encoder in "$work"/exp/pre_*/seed1; do
    speechkit probe --model "$encoder" --train "$work/dump/dev" --test "$work/dump/test"
  done
  python local/quality.py "$work/exp"
fi

if stage 8 "report: RESULTS.md and plots"; then
  speechkit report --exp "$work/exp" --systems "$systems" --out "$work/RESULTS.md" \
    --tables "$work"/exp/{labels_against_phones,linear_phone_probe}.json
fi

finish
