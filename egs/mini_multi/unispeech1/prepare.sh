#!/usr/bin/env bash
# UniSpeech across languages: nine languages from grammars, spoken by espeak-ng; phones by espeak-ng too.
#   ./prepare.sh                          the corpus, its phones, formatted audio and vocabularies
#   ./prepare.sh --targets ky,nl          two languages to learn from little instead of five
#   ./prepare.sh --stage 2 --stop-stage 2 a part of it
#   ./prepare.sh --quick true             a small version that only shows that all parts work, in quick/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0              # first stage to run
stop_stage=8         # last stage to run
list_stages=false    # print the stages and stop
force=false          # make again what is up to date
quick=false          # tiny corpus, in quick/: a check of the machinery, no result
sources=en,es,fr,it     # languages with labels for pre-training (L), between commas
targets=ky,nl,ru,sv,tt  # languages to learn from few labels (N), with speech without labels (M)
telephone="nl"         # the target whose train, dev and test are heard over the telephone too, or none
english=700          # sentences of English, 40 minutes
source=480           # sentences of every other source, 20 minutes
unlabelled=480       # sentences without text of each target, 20 minutes
train=120            # sentences with text of each target, 5 minutes
dev=120              # sentences of each target's dev set, 5 minutes
test=240             # sentences of each target's test set, 10 minutes
seed=1               # seed of the corpus
jobs=2               # processes for synthesis and formatting

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage english source unlabelled train dev test seed jobs

work=. source_dev=30
[[ $quick != true ]] || work=quick english=40 source=30 source_dev=6 unlabelled=20 train=30 dev=10 test=15
corpus=$work/downloads/mini_multi
sizes=(--english "$english" --source "$source" --source-dev "$source_dev" --unlabelled "$unlabelled")
sizes+=(--train "$train" --dev "$dev" --test "$test")

# What is told apart by who has it: <language>_<set> of L, of the targets, and what came over the telephone.
source_sets=() train_sets=() dev_sets=() test_sets=() unlabelled_sets=() telephone_sets=()
for language in ${sources//,/ }; do source_sets+=("$language"_{train,dev}); done
for language in ${targets//,/ }; do
  train_sets+=("${language}_train") dev_sets+=("${language}_dev") test_sets+=("${language}_test")
  unlabelled_sets+=("${language}_unlabelled")
done
[[ $telephone == none ]] || telephone_sets=("$telephone"_{train,dev,test}_telephone)
labelled_sets=("${source_sets[@]}" "${train_sets[@]}" "${dev_sets[@]}" "${test_sets[@]}")
letter_sets=("${telephone_sets[@]%_telephone}" "${telephone_sets[@]}")  # also written in letters, for WER

if stage 0 "synthesise the corpus"; then
  python local/corpus.py --out "$corpus" --sources "$sources" --targets "$targets" --telephone "$telephone" \
    --seed "$seed" --jobs "$jobs" --force "$force" "${sizes[@]}"
fi

if stage 1 "data preparation: Kaldi directories, the phone of every 10 ms, phones as text"; then
  python local/data.py "$corpus" "$work/data"
  python ../../mini_en/ssl1/local/phones.py "$corpus" "$work/data" "${labelled_sets[@]}" --jobs "$jobs"
  for set in "${labelled_sets[@]}"; do
    language=${set%%_*} held_out=false
    [[ $set == *_train ]] || held_out=true
    speechkit phonemize --data "$work/data/$set" --out "$work/data/${set}_phn" --language "${language/#en/en-us}" \
      --evaluation "$held_out" --force "$force"
  done
fi

if stage 2 "validate, format audio; nothing shared between what is trained on and what is held out"; then
  for set in "${labelled_sets[@]/%/_phn}" "${letter_sets[@]}" "${unlabelled_sets[@]}"; do
    kind=evaluation without_text=false
    [[ $set != *_train* && $set != *_unlabelled ]] || kind=train
    [[ $set != *_unlabelled ]] || without_text=true
    speechkit validate "$work/data/$set" --no-text "$without_text"
    speechkit format --data "$work/data/$set" --out "$work/dump/$set" --kind "$kind" --link true --jobs "$jobs" \
      --force "$force"
  done
  data=$work/data
  trained=("${train_sets[@]}" "${unlabelled_sets[@]}" "${telephone_sets[@]:0:1}")
  heard=("${telephone_sets[@]:1}")
  speechkit leakage --pretrain "${source_sets[@]/#/$data/}" --train "${trained[@]/#/$data/}" \
    --test "${dev_sets[@]/#/$data/}" "${test_sets[@]/#/$data/}" "${heard[@]/#/$data/}"
  speechkit leakage --train "${dev_sets[@]/#/$data/}" --test "${test_sets[@]/#/$data/}"
fi

if stage 3 "tokens: the phones of each target, of all of them and of the sources; letters"; then
  for language in ${targets//,/ }; do
    speechkit tokenizer --kind phone --text "$work/data/${language}_train_phn/text" --out "$work/data/tokens/$language" \
      --check "$work/data/${language}_dev_phn/text" --force "$force"
  done
  phones=("${train_sets[@]/#/$work/data/}")
  speechkit tokenizer --kind phone --text "${phones[@]/%/_phn/text}" --out "$work/data/tokens/targets" --force "$force"
  phones=()
  for language in ${sources//,/ }; do phones+=("$work/data/${language}_train_phn/text"); done
  speechkit tokenizer --kind phone --text "${phones[@]}" --out "$work/data/tokens/sources" --force "$force"
  if [[ $telephone != none ]]; then
    speechkit tokenizer --kind char --text "$work/data/${telephone}_train/text" --out "$work/data/tokens/letters" \
      --check "$work/data/${telephone}_dev/text" --force "$force"
  fi
fi

finish
