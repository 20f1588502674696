#!/usr/bin/env bash
# LibriSpeech without labels: 960 h of pre-training (wav2vec 2.0, HuBERT, XLSR), then CTC on 10 minutes to 100 hours.
#   ./run.sh --methods 'wav2vec2_base*'                                      one family: pre-training, 4 fine-tunings
#   ./run.sh --methods 'hubert_km_mfcc,hubert_km_it1,hubert_base*'           HuBERT Base in two iterations
#   ./run.sh --corpus-dir /path/to/corpora --methods ...                     no download
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0                    # first stage to run
stop_stage=8               # last stage to run
list_stages=false          # print the stages and stop
force=false                # make again what is up to date
quick=false                # tiny models, few updates, in quick/: a check of the machinery on corpora in miniature, no result
corpus_dir=                # holds LibriSpeech and librispeech_finetuning; empty downloads them
languages_dirs=            # for XLSR, between commas: folders <language> with Kaldi directories train and dev in each
methods="wav2vec2_base*"   # systems of conf/systems.yaml or patterns, between commas
seeds=1                    # runs of each system
lm=                        # ARPA model such as openslr.org/11's 4-gram.arpa.gz; empty trains one on lm_text
lm_text=                   # sentences, one a line, such as librispeech-lm-norm.txt; empty takes the transcripts
words=                     # words that may be recognised, one a line; empty takes those of lm_text
lanes=1                    # systems trained or decoded at a time
processes=1                # processes (GPUs) that train one system
jobs=2                     # processes for formatting

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seeds lanes processes jobs

choose_systems .
IFS=, read -ra languages <<<"$languages_dirs"
# LibriSpeech itself is the business of the recipe beside this one: its stages 0 to 3 are run with ours, in its folder.
librispeech=(../asr1/run.sh --parts "train-clean-100,train-clean-360,train-other-500" --quick "$quick" --force "$force"
  --jobs "$jobs" ${corpus_dir:+--corpus-dir "$(realpath -m "$corpus_dir/LibriSpeech")"} ${lm:+--lm "$(realpath -m "$lm")"}
  ${lm_text:+--lm-text "$(realpath -m "$lm_text")"} ${words:+--words "$(realpath -m "$words")"})

if stage 0 "download"; then
  "${librispeech[@]}" --stage 0 --stop-stage 0
  [[ -n $corpus_dir ]] || python local/download.py downloads
fi

if stage 1 "data preparation"; then
  "${librispeech[@]}" --stage 1 --stop-stage 1
  python local/data.py "${corpus_dir:-downloads}/librispeech_finetuning" "$work/data"
fi

if stage 2 "validate, format audio"; then
  "${librispeech[@]}" --stage 2 --stop-stage 2
  format=(speechkit format --max-seconds 36 --link true --jobs "$jobs" --force "$force")
  for set in train_10min train_1h train_10h; do
    "${format[@]}" --data "$work/data/$set" --out "$work/dump/$set"
  done
  for folder in "${languages[@]}"; do
    "${format[@]}" --data "$folder/train" --out "$work/dump/languages/${folder##*/}/train"
    "${format[@]}" --data "$folder/dev" --out "$work/dump/languages/${folder##*/}/dev" --kind evaluation
  done
fi

if stage 3 "tokens, lexicon, language model"; then
  "${librispeech[@]}" --stage 3 --stop-stage 3
fi

if stage 4 "pre-train"; then
  "${matrix[@]}" --stage 4 --processes "$processes"
fi

compare_systems "fine-tune"
finish
