#!/usr/bin/env bash
# BABEL: telephone conversations in Vietnamese, Swahili or Tamil, from IARPA's full language packs (8 kHz), by Wav-BERT and
# the systems that it was compared with.
#   ./run.sh --corpus-dir /path/to/pack --language swahili --checkpoint /path/to/wav2vec2
#   ./run.sh --corpus-dir /path/to/pack --language tamil --checkpoint /path --multilingual-checkpoint /path --methods all
#   ./run.sh --corpus-dir /path/to/pack --language tamil --methods conformer,blstmp --bert none     no checkpoint, no BERT
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0                                # first stage to run
stop_stage=8                           # last stage to run
list_stages=false                      # print the stages and stop
force=false                            # make again what is up to date
quick=false                            # tiny models, few updates, in quick/: a check of the machinery on a pack in miniature, no result
corpus_dir=                            # the language pack, with the folder conversational somewhere in it
language=swahili                       # vietnamese, swahili or tamil; all is made in a folder of that name
dev_share=0.05                         # share of the training speech, by speakers, that becomes the dev set
cer_space=keep                         # whether CER counts spaces: keep or drop
bert="bert-base-multilingual-uncased"  # of all systems, and whose pieces they speak: a Hugging Face folder, or a name on its hub; or none
checkpoint=                            # of wav2vec 2.0: Hugging Face folder, fairseq .pt or torchaudio file (stage 4)
multilingual_checkpoint=               # the same for the systems *xlsr53*
methods="bert*,wav2vec2*,wavbert"      # systems of conf/systems.yaml or patterns, between commas
seeds=1                                # runs of each system
order=4                                # of the n-gram model of words
lanes=1                                # systems trained or decoded at a time
processes=1                            # processes (GPUs) that train one system
jobs=2                                 # processes for formatting

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seeds order lanes processes jobs
[[ $language =~ ^(vietnamese|swahili|tamil)$ ]] || die "--language must be vietnamese, swahili or tamil, got '$language'"
[[ $cer_space =~ ^(keep|drop)$ ]] || die "--cer-space must be keep or drop, got '$cer_space'"

choose_systems "$language"
[[ $quick == true ]] || systems=conf/systems_$language.yaml  # what stage 8 reads: the same, with the paper's numbers
spaces=true; [[ $cer_space == keep ]] || spaces=false
matrix+=(--cer-spaces "$spaces")
choose_bert
scratch=false; [[ ,$methods =~ ^(,(conformer|(multi_)?(vgg_)?blstmp))+$ ]] && scratch=true

if stage 0 "download a BERT"; then
  fetch_bert
fi

if stage 1 "data preparation"; then
  [[ -n $corpus_dir ]] || die "--corpus-dir: name a language pack; LDC distributes them, they are not downloaded here"
  python local/data.py "$corpus_dir" "$language" "$work/data" "$dev_share"
fi

if stage 2 "validate, format audio (16 kHz), statistics of features"; then
  speechkit format --data "$work/data/train" --out "$work/dump/train" --jobs "$jobs" --force "$force"
  speechkit features --data "$work/dump/train" --cmvn true --dump false --jobs "$jobs" --force "$force"
  for set in dev test; do
    speechkit format --data "$work/data/$set" --out "$work/dump/$set" --kind evaluation --jobs "$jobs" --force "$force"
  done
fi

if stage 3 "tokens: letters, also of all languages that are there, pieces of BERT; words, n-gram model of words"; then
  tokenizer=(speechkit tokenizer --text "$work/dump/train/text" --check "$work/data/dev/text" --force "$force")
  "${tokenizer[@]}" --kind char --out "$work/data/tokens/char"
  speechkit tokenizer --text "$work"/../*/dump/train/text --check "$work/data/dev/text" --kind char \
    --out "$work/data/tokens/char_all" --force "$force"
  [[ $bert == none ]] || "${tokenizer[@]}" --kind wordpiece --vocab "$bert_folder" --out "$work/data/tokens/bert"
  speechkit ngram train --text "$work/dump/train/text" --ids true --order "$order" --discount-fallback true \
    --out "$work/data/lm/ngram.arpa" --force "$force"
  cut -d ' ' -f 2- "$work/dump/train/text" | tr -s ' ' '\n' | grep . | LC_ALL=C sort -u >"$work/data/lm/words"
  [[ $bert == none ]] || link_bert "$work/data"
fi

if stage 4 "convert the checkpoint"; then
  [[ -n $checkpoint$multilingual_checkpoint || $scratch == true ]] || die "--checkpoint: name a Hugging Face folder, fairseq .pt or torchaudio file"
  [[ $bert != none || $scratch == true ]] || die "--bert none: only conformer and *blstmp do without a BERT"
  [[ -z $checkpoint ]] || convert_checkpoint
  [[ -z $multilingual_checkpoint ]] || convert_checkpoint downloaded_xlsr53 "$multilingual_checkpoint"
fi

compare_systems "train, and fine-tune the checkpoint"
finish
