#!/usr/bin/env bash
# TED-LIUM 3, 450 h of talks, in letters: encoders that learnt from the read speech of LibriSpeech, by UniSpeech with phones,
# by CTC alone or by wav2vec 2.0, against one from scratch.
#   ./run.sh --corpus-dir /path/to/TEDLIUM_release-3                                      LibriSpeech is downloaded
#   ./run.sh --corpus-dir /path/to/TEDLIUM_release-3 --librispeech-dir /path/to/LibriSpeech --methods 'unispeech*'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0           # first stage to run
stop_stage=8      # last stage to run
list_stages=false # print the stages and stop
force=false       # make again what is up to date
quick=false       # tiny models, few updates, in quick/: a check of the machinery on corpora in miniature, no result
corpus_dir=       # TED-LIUM 3, the folder TEDLIUM_release-3
librispeech_dir=  # the folder LibriSpeech; empty downloads it
methods=all       # systems of conf/systems.yaml or patterns, between commas, or all
seeds=1           # runs of each system
lanes=1           # systems trained or decoded at a time
processes=1       # processes (GPUs) that train one system
jobs=2            # processes for formatting

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seeds lanes processes jobs

choose_systems .
# LibriSpeech is the business of its own recipe, whose stages 0 and 1 are run with ours, in its folder.
librispeech=(../../librispeech/asr1/run.sh --parts "train-clean-100,train-clean-360,train-other-500" --quick "$quick"
  --force "$force" --jobs "$jobs" ${librispeech_dir:+--corpus-dir "$(realpath -m "$librispeech_dir")"})
read_sets=(train_clean_100 train_clean_360 train_other_500 dev_other)

if stage 0 "download LibriSpeech"; then
  "${librispeech[@]}" --stage 0 --stop-stage 0
fi

if stage 1 "data preparation"; then
  [[ -n $corpus_dir ]] || die "--corpus-dir: name the folder TEDLIUM_release-3; the README says where it comes from"
  "${librispeech[@]}" --stage 1 --stop-stage 1
  python local/data.py "$corpus_dir" "$work/data"
fi

if stage 2 "validate, format audio, statistics of features"; then
  format=(speechkit format --link true --jobs "$jobs" --force "$force")
  "${format[@]}" --data "$work/data/train" --out "$work/dump/train"
  speechkit features --data "$work/dump/train" --cmvn true --dump false --jobs "$jobs" --force "$force"
  for set in dev test; do
    "${format[@]}" --data "$work/data/$set" --out "$work/dump/$set" --kind evaluation
  done
  for set in "${read_sets[@]}"; do
    kind=train; [[ $set == train* ]] || kind=evaluation
    "${format[@]}" --data "../../librispeech/asr1/$work/data/$set" --out "$work/dump/librispeech/$set" --kind "$kind" \
      --max-seconds 36
  done
fi

if stage 3 "phones of LibriSpeech; tokens: phones, characters"; then
  for set in "${read_sets[@]}"; do
    # The dev set only tells when pre-training goes wrong: it may lose sentences that espeak-ng reads as another language.
    speechkit phonemize --data "$work/dump/librispeech/$set" --out "$work/dump/librispeech_phn/$set" --language en-us \
      --evaluation false --force "$force"
  done
  speechkit tokenizer --kind phone --text "$work"/dump/librispeech_phn/train_*/text \
    --check "$work/dump/librispeech_phn/dev_other/text" --out "$work/data/tokens/phone" --force "$force"
  # For both corpora; LibriSpeech is written in capitals.
  speechkit tokenizer --kind char --text "$work/dump/train/text" "$work"/dump/librispeech/train_*/text \
    --check "$work/data/dev/text" --out "$work/data/tokens/char" --force "$force" case=lower
fi

if stage 4 "pre-train on LibriSpeech: without labels, on characters, on phones"; then
  "${matrix[@]}" --stage 4 --processes "$processes"
fi

compare_systems "fine-tune"
finish
