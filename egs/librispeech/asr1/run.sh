#!/usr/bin/env bash
# LibriSpeech with a pre-trained encoder from elsewhere: fine-tune it with CTC, or score the CTC model it already is; and LAS
# and transducers, which learn from a BERT's embeddings, or read what an AV-BERT makes of speech.
#   ./run.sh --checkpoint /path/to/wav2vec2                                everything, on train-clean-100
#   ./run.sh --checkpoint /path/to/a/ctc/model --methods downloaded        no training: decode and score it
#   ./run.sh --corpus-dir /path/to/LibriSpeech --checkpoint ...            no download
#   ./run.sh --bert bert-base-uncased --parts train-clean-100,train-clean-360,train-other-500 --methods 'las_*,transducer_0*'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0                # first stage to run
stop_stage=8           # last stage to run
list_stages=false      # print the stages and stop
force=false            # make again what is up to date
quick=false            # few updates, in quick/: a check of the machinery on a corpus in miniature, no result
corpus_dir=            # a copy of the corpus, the folder LibriSpeech; empty downloads it into downloads/
parts=train-clean-100  # training parts to prepare, between commas
checkpoint=            # Hugging Face folder, fairseq .pt or torchaudio file (stage 4)
dictionary=            # letters of its CTC head where the checkpoint has none: fairseq's dict.ltr.txt
bert=none              # whose pieces las_* and transducer_* speak: a Hugging Face folder, or a name on its hub; or none
subwords=16000         # size of the vocabulary of las_own and transducer_own, and of av_*, which had 1000
av_bert=               # folder with av_bert_a and av_bert_av for av_*, such as ../../kinetics600/avbert1/exp
methods=base_100h      # systems of conf/systems.yaml or patterns, between commas; "downloaded" is the checkpoint itself
seeds=1                # runs of each system
lm=                    # ARPA model such as openslr.org/11's 4-gram.arpa.gz; empty trains one on lm_text
lm_text=               # sentences, one a line, such as librispeech-lm-norm.txt; empty takes the transcripts
words=                 # words that may be recognised, one a line; empty takes those of lm_text
order=4                # of the n-gram model that is trained
lanes=1                # systems trained or decoded at a time
processes=1            # processes (GPUs) that train one system
jobs=2                 # processes for formatting

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage subwords seeds order lanes processes jobs

IFS=, read -ra train_parts <<<"$parts"
sets=("${train_parts[@]}" dev-clean dev-other test-clean test-other)
choose_systems .
choose_bert
taught=false; [[ $methods =~ las_|transducer_|conformer_|av_|\*|^all$ ]] && taught=true  # LAS and transducers, perhaps
# Named as the recipes beside this one see it too: they read this recipe's audio.
dump=../asr1/$work/dump

if stage 0 "download"; then
  [[ -n $corpus_dir ]] || python local/download.py downloads "${sets[@]}"
  fetch_bert
fi

if stage 1 "data preparation"; then
  python local/data.py "${corpus_dir:-downloads/LibriSpeech}" "$work/data" "${sets[@]}"
fi

if stage 2 "validate, format audio; statistics of features"; then
  # FLAC of 16 kHz is linked, not copied, where the disk allows. wav2vec 2.0 reads samples, the others log-mels.
  for set in "${sets[@]//-/_}"; do
    kind=evaluation; [[ $set == train* ]] && kind=train
    speechkit format --data "$work/data/$set" --out "$dump/$set" --kind "$kind" --max-seconds 36 --link true \
      --jobs "$jobs" --force "$force"
  done
  [[ $taught == false || ! -d $dump/train_clean_100 ]] ||
    speechkit features --data "$dump/train_clean_100" --cmvn true --dump false --jobs "$jobs" --force "$force"
fi

if stage 3 "tokens, lexicon, language model"; then
  texts=("${train_parts[@]//-/_}")
  texts=("${texts[@]/#/$work/data/}")
  texts=("${texts[@]/%//text}")
  speechkit tokenizer --text "${texts[@]}" --kind char --check "$work/data/dev_other/text" \
    --out "$work/data/tokens/char" --force "$force"
  [[ $taught == false ]] || speechkit tokenizer --text "${texts[@]}" --kind unigram --size "$subwords" \
    --out "$work/data/tokens/subwords" --force "$force"
  if [[ $bert != none ]]; then
    speechkit tokenizer --text "${texts[@]}" --kind wordpiece --vocab "$bert_folder" --pieces full --specials both \
      --out "$work/data/tokens/bert" --force "$force"
    speechkit bert-embed --bert "$bert_folder" --tokenizer "$work/data/tokens/bert" --out "$work/data/embeddings" \
      --text "${texts[@]}" "$work/data/dev_other/text" --force "$force"
  fi
  mkdir -p "$work/data/lm"
  cut -d ' ' -f 2- "${texts[@]}" >"$work/data/lm/text"
  tr -s ' ' '\n' <"${words:-${lm_text:-$work/data/lm/text}}" | grep . | LC_ALL=C sort -u >"$work/data/lm/words"
  if [[ -n $lm ]]; then
    speechkit ngram convert --lm "$lm" --out "$work/data/lm/ngram.arpa"
  else
    speechkit ngram train --text "${lm_text:-$work/data/lm/text}" --order "$order" --discount-fallback true \
      --out "$work/data/lm/ngram.arpa" --force "$force"
  fi
fi

if stage 4 "convert the checkpoint, pre-train"; then
  [[ -n $checkpoint || $methods =~ ^(las|transducer|av)_ && ! $methods =~ downloaded|wav2vec2|_100h|_960h ]] ||
    die "--checkpoint: name a Hugging Face folder, a fairseq .pt or a torchaudio file"
  [[ -n $av_bert || ! $methods =~ (^|,)av_ ]] || die "--av-bert: name the folder that has av_bert_a and av_bert_av in it"
  [[ -z $checkpoint ]] || convert_checkpoint
  [[ -z $av_bert ]] || ln -sfn "$(realpath -e "$av_bert")" "$work/data/av_bert"
  "${matrix[@]}" --stage 4 --processes "$processes"
fi

compare_systems "train, and fine-tune the checkpoint"
finish
