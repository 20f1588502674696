#!/usr/bin/env bash
# AISHELL-1: 150 h of read Mandarin, by Wav-BERT and the systems that it was compared with.
#   ./run.sh --checkpoint /path/to/wav2vec2                   everything; the corpus and BERT are downloaded
#   ./run.sh --corpus-dir /path --bert /path/to/bert ...      no download
#   ./run.sh --checkpoint /path --chinese-checkpoint /path --methods all     all baselines, ablations and controls
#   ./run.sh --methods conformer --bert none                  no checkpoint, no BERT: all characters of the text
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0                      # first stage to run
stop_stage=8                 # last stage to run
list_stages=false            # print the stages and stop
force=false                  # make again what is up to date
quick=false                  # tiny models, few updates, in quick/: a check of the machinery on a corpus in miniature, no result
corpus_dir=                  # holds data_aishell; empty downloads it into downloads/
bert="bert-base-chinese"     # of all systems, and whose pieces they speak: a Hugging Face folder, or a name on its hub; or none
checkpoint=                  # of wav2vec 2.0: Hugging Face folder, fairseq .pt or torchaudio file (stage 4)
chinese_checkpoint=          # the same for the systems *_cn
methods="bert*,wav2vec2,wavbert"  # systems of conf/systems.yaml or patterns, between commas, or all
seeds=1                      # runs of each system
order=4                      # of the n-gram model of characters
lanes=1                      # systems trained or decoded at a time
processes=1                  # processes (GPUs) that train one system
jobs=2                       # processes for formatting

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seeds order lanes processes jobs

choose_systems .
matrix+=(--cer-spaces false)  # the transcripts have none
choose_bert
units=(--kind char)
[[ $bert == none ]] || units=(--kind wordpiece --vocab "$bert_folder")

if stage 0 "download"; then
  [[ -n $corpus_dir ]] || python local/download.py downloads
  fetch_bert
fi

if stage 1 "data preparation"; then
  python local/data.py "${corpus_dir:-downloads}" "$work/data"
fi

if stage 2 "validate, format audio, statistics of features"; then
  # WAV of 16 kHz is linked, not copied, where the disk allows.
  speechkit format --data "$work/data/train" --out "$work/dump/train" --link true --jobs "$jobs" --force "$force"
  speechkit features --data "$work/dump/train" --cmvn true --dump false --jobs "$jobs" --force "$force"
  for set in dev test; do
    speechkit format --data "$work/data/$set" --out "$work/dump/$set" --kind evaluation --link true --jobs "$jobs" \
      --force "$force"
  done
fi

if stage 3 "tokens: characters as BERT cuts them; n-gram model of characters; what BERT knows of the text"; then
  speechkit tokenizer --text "$work/dump/train/text" --check "$work/data/dev/text" "${units[@]}" \
    --out "$work/data/tokens/units" --force "$force" form=NFKC case=lower
  speechkit ngram train --text "$work/dump/train/text" --ids true --tokenizer "$work/data/tokens/units" \
    --order "$order" --discount-fallback true --out "$work/data/lm/ngram.arpa" --force "$force"
  [[ $bert == none ]] || link_bert "$work/data" form=NFKC case=lower
fi

if stage 4 "convert the checkpoint"; then
  [[ -n $checkpoint$chinese_checkpoint || $methods == conformer ]] || die "--checkpoint: name a Hugging Face folder, fairseq .pt or torchaudio file"
  [[ $bert != none || $methods == conformer ]] || die "--bert none: only --methods conformer does without a BERT"
  [[ -z $checkpoint ]] || convert_checkpoint
  [[ -z $chinese_checkpoint ]] || convert_checkpoint downloaded_cn "$chinese_checkpoint"
fi

compare_systems "train, and fine-tune the checkpoint"
finish
