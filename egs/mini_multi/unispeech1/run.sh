#!/usr/bin/env bash
# UniSpeech across languages: phones of Kyrgyz and Dutch from five minutes of labels, after English or four languages.
#   ./run.sh                          every setting, baseline and ablation; nine languages' text comes from grammars here
#   ./run.sh --quick true             English to Kyrgyz, one seed, shorter trainings; in quick/
#   ./run.sh --methods 'pre_*_en,codes_*_en,*_en_ky' --seeds 1   a part of it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0              # first stage to run
stop_stage=8         # last stage to run
list_stages=false    # print the stages and stop
force=false          # make again what is up to date
quick=false          # fewer systems, one seed and shorter trainings, in quick/
corpus=full          # "small": too little to learn from, in quick/small; checks the machinery
methods=all          # comma-separated systems of conf/systems.yaml, or patterns
seeds=               # seeds per system; empty takes the numbers in conf/systems.yaml
lanes=2              # trainings at a time, which share the cores
jobs=2               # processes for synthesis, formatting and features

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage lanes jobs
[[ $corpus =~ ^(full|small)$ ]] || die "--corpus must be full or small, got '$corpus'"

# The languages of conf/systems.yaml; the corpus has ru, sv and tt as well.
work=. systems=conf/systems.yaml sources=en,es,fr,it targets=ky,nl telephone=nl sizes=()
[[ $quick != true ]] || { work=quick systems=conf/systems_quick.yaml sources=en targets=ky telephone=none; }
if [[ $corpus == small ]]; then
  work=quick/small
  sizes=(--english 40 --source 30 --source-dev 6 --unlabelled 20 --train 30 --dev 10 --test 15)
fi
matrix=(speechkit matrix --systems "$systems" --work "$work" --methods "$methods" ${seeds:+--seeds "$seeds"} \
  --force "$force")
# shellcheck source=local/functions.sh
. local/functions.sh

if stage 0 "synthesise the corpus"; then
  python local/corpus.py --out "$work/downloads/mini_multi" --sources "$sources" --targets "$targets" \
    --telephone "$telephone" --jobs "$jobs" --force "$force" "${sizes[@]}"
fi

if stage 1 "data preparation: Kaldi directories, the phone of every 10 ms, phones as text"; then
  python local/data.py "$work/downloads/mini_multi" "$work/data"
  python ../../mini_en/ssl1/local/phones.py "$work/downloads/mini_multi" "$work/data" "${source_devs[@]}" "${devs[@]}" \
    --jobs "$jobs"
  spell phn separate "${source_trains[@]}" "${source_devs[@]}"  # (es)a and (it)a are two phones in pre-training
  spell phn shared "${trains[@]}" "${devs[@]}" "${tests[@]}"
  spell sep separate "${trains[@]}" "${devs[@]}"
fi

if stage 2 "validate, format audio, features; nothing shared between what is learnt from and what is held out"; then
  separate
  prepare "${source_trains[@]/%/_phn}" "${source_devs[@]/%/_phn}" "${trains[@]/%/_phn}" "${devs[@]/%/_phn}" \
    "${tests[@]/%/_phn}" "${trains[@]/%/_sep}" "${devs[@]/%/_sep}" "${unlabelled[@]}" "${telephones[@]}"
  join sources_dev_phn "${source_devs[@]/%/_phn}"
  join targets_dev_phn "${devs[@]/%/_phn}"
  join targets_dev_sep "${devs[@]/%/_sep}"
  join held_out_phn "${source_devs[@]/%/_phn}" "${devs[@]/%/_phn}"
fi

if stage 3 "tokens: the phones of English, of all sources, of each target and of both; letters"; then
  learn en phone none en_train_phn
  learn sources phone none "${source_trains[@]/%/_phn}"
  for language in ${targets//,/ }; do learn "$language" phone "${language}_dev_phn" "${language}_train_phn"; done
  learn targets phone none "${trains[@]/%/_phn}"
  learn targets_sep phone none "${trains[@]/%/_sep}"
  [[ $telephone == none ]] || learn letters char "${telephones[1]}" "${telephones[0]}"
fi

if stage 4 "pre-train; what codewords know of phones"; then
  "${matrix[@]}" --stage 4 --lanes "$lanes"
fi

if stage 5 "fine-tune, and train from scratch"; then
  "${matrix[@]}" --stage 5 --lanes "$lanes"
fi

if stage 6 "decode"; then
  "${matrix[@]}" --stage 6 --lanes "$lanes"
fi

if stage 7 "score: phones, without the languages that they are told apart by; words over the telephone"; then
  "${matrix[@]}" --stage 7
fi

if stage 8 "report: RESULTS.md and pictures"; then
  python local/tables.py "$work/exp"
  shopt -s nullglob
  speechkit report --exp "$work/exp" --systems "$systems" --out "$work/RESULTS.md" \
    --tables "$work"/exp/tables/*.json --pictures "$work"/exp/tables/*.png
fi

finish
