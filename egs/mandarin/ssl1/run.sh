#!/usr/bin/env bash
# Mandarin: wav2vec 2.0 pre-trained on the open corpora that you have, from scratch or from a checkpoint; CTC on AISHELL-1.
#   ./run.sh                                                            AISHELL-1 alone, downloaded
#   ./run.sh --corpora aishell:/path,stcmds:/path,thchs_30:/path        these, no download
#   ./run.sh --checkpoint /path/to/wav2vec2 --methods 'continued*'      goes on with an English checkpoint
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0               # first stage to run
stop_stage=8          # last stage to run
list_stages=false     # print the stages and stop
force=false           # make again what is up to date
quick=false           # tiny model, few updates, in quick/: a check of the machinery on corpora in miniature, no result
corpora=              # name:/path between commas (README.md has the names); empty downloads AISHELL-1
checkpoint=           # to continue from: Hugging Face folder, fairseq .pt or torchaudio file (stage 4)
methods="base*"       # systems of conf/systems.yaml or patterns, between commas
seeds=1               # runs of each system
lanes=1               # systems trained or decoded at a time
processes=1           # processes (GPUs) that train one system
jobs=2                # processes for formatting

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seeds lanes processes jobs

choose_systems .
IFS=, read -ra given <<<"${corpora:-aishell:downloads}"

if stage 0 "download"; then
  [[ -n $corpora ]] || python ../../aishell/asr1/local/download.py downloads
fi

if stage 1 "data preparation"; then
  python local/data.py "$work/data" "${given[@]/:/=}"
fi

if stage 2 "validate, format audio"; then
  for pair in "${given[@]}"; do
    # Other corpora have recordings of a word or two, and one or two broken files.
    speechkit format --data "$work/data/pretrain/${pair%%:*}" --out "$work/dump/pretrain/${pair%%:*}" --max-drop 0.02 \
      --link true --jobs "$jobs" --force "$force"
  done
  for set in dev test; do
    speechkit format --data "$work/data/$set" --out "$work/dump/$set" --kind evaluation --link true --jobs "$jobs" \
      --force "$force"
  done
fi

if stage 3 "tokens: characters"; then
  speechkit tokenizer --text "$work/dump/pretrain/aishell/text" --kind char --check "$work/data/dev/text" \
    --out "$work/data/tokens/char" --force "$force"
fi

if stage 4 "pre-train, or convert a checkpoint and go on with it"; then
  [[ -z $checkpoint ]] || convert_checkpoint
  "${matrix[@]}" --stage 4 --processes "$processes"
fi

compare_systems "fine-tune"
finish
