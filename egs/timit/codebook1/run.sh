#!/usr/bin/env bash
# What the codewords of pre-trained models know of TIMIT's phones.
#   ./run.sh --corpus-dir /path/to/TIMIT --checkpoints 'unispeech=/path/to/unispeech,xlsr=/path/to/xlsr'
#   ./run.sh --corpus-dir /path/to/TIMIT               a small wav2vec 2.0, pre-trained on TIMIT itself
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0             # first stage to run
stop_stage=8        # last stage to run
list_stages=false   # print the stages and stop
force=false         # make again what is up to date
quick=false         # few updates of a tiny model, in quick/: a check of the machinery, no result
corpus_dir=         # TIMIT, the folder with TRAIN and TEST in it
checkpoints=        # name=path between commas: SpeechKit experiments, Hugging Face folders, fairseq .pt; empty pre-trains one
set=train           # whose frames are counted: train or test
device=cpu          # where the codes are computed, such as cuda
jobs=2              # processes for formatting

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage jobs

[[ $set == train || $set == test ]] || die "--set must be train or test, got '$set'"
work=. options=()
[[ $quick != true ]] || { work=quick; options=(plan.seconds=20 loop.max_updates=4 validation.every=4); }
IFS=, read -ra models <<<"${checkpoints:-wav2vec2=$work/exp/wav2vec2/seed1}"
for model in "${models[@]}"; do
  [[ $model =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*=.+ ]] || die "--checkpoints: expected name=path, got '$model'"
done
# is_experiment PATH: whether SpeechKit wrote it; anything else is converted.
is_experiment() { [[ -f $1/config.yaml || -f $1/final/config.yaml ]]; }

if stage 1 "data preparation"; then
  [[ -n $corpus_dir ]] || die "--corpus-dir: name TIMIT, the folder with TRAIN and TEST in it"
  python local/data.py "$corpus_dir" "$work/data"
fi

if stage 2 "validate, format audio"; then
  for part in train test; do
    speechkit format --data "$work/data/$part" --out "$work/dump/$part" --kind evaluation --jobs "$jobs" --force "$force"
  done
fi

if stage 4 "pre-train, or convert the checkpoints"; then
  if [[ -z $checkpoints ]]; then
    echo "progress: tail -f $work/exp/wav2vec2/seed1/train.log" >&2
    $train_cmd "$work/exp/wav2vec2/seed1/train.log" speechkit train --config conf/pretrain_wav2vec2.yaml \
      --train "$work/dump/train" --dev "$work/dump/test" --exp "$work/exp/wav2vec2/seed1" seed=1 "${options[@]}"
  fi
  for model in ${checkpoints:+"${models[@]}"}; do
    is_experiment "${model#*=}" || speechkit convert --model "${model#*=}" --out "$work/exp/${model%%=*}/seed1/final" \
      --force "$force"
  done
fi

if stage 7 "score: codewords against phones"; then
  [[ -n $corpus_dir ]] || die "--corpus-dir: name TIMIT, whose .PHN files are read here"
  for model in "${models[@]}"; do
    exp=${model#*=}
    is_experiment "$exp" || exp=$work/exp/${model%%=*}/seed1
    speechkit codebook --exp "$exp" --data "$work/dump/$set" --phones "$corpus_dir" --form phn \
      --out "$work/exp/${model%%=*}/codebook_$set" --device "$device" --force "$force"
  done
fi

if stage 8 "report: RESULTS.md and pictures"; then
  python local/report.py "$work" "$set" "${models[@]%%=*}"
fi

finish
