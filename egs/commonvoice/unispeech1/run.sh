#!/usr/bin/env bash
# Common Voice: UniSpeech across languages, with CTC-Transfer and XLSR: phones of an hour of a language that is new.
#   ./run.sh --corpus-dir /path/to/cv-corpus --splits /path/to/lists --targets ky,nl          one-to-one: from English
#   ./run.sh --corpus-dir ... --splits ... --setting many_to_one --size large                 from four languages
#   ./run.sh --corpus-dir ... --splits ... --setting many_to_many --vocabulary separate       one model of all targets
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0                 # first stage to run
stop_stage=8            # last stage to run
list_stages=false       # print the stages and stop
force=false             # make again what is up to date
quick=false             # tiny models, few updates, in quick/: a check of the machinery on a corpus in miniature, no result
corpus_dir=             # holds <language>/{clips,validated.tsv,dev.tsv,test.tsv}
splits=                 # holds <language>/{train,dev,test}.txt of every target: clips, one a line
setting=one_to_one      # one_to_one, many_to_one or many_to_many
sources=                # languages with labels for pre-training (L); empty: en, or en,es,fr,it from many
targets=ky,nl,ru,sv,tt  # languages to learn from an hour (N), with speech without labels (M)
size=base               # base or large
vocabulary=shared       # many_to_many: shared (a symbol is one class) or separate (a class for each language)
held_out=speakers       # what of dev and test stays out of pre-training: their speakers, or no more than their clips
methods=ctc_transfer,xlsr,unispeech_r0,unispeech  # also xlsr_plus, unispeech_plus, unispeech_sequential: with M
max_drop=0.05           # largest share of a set that may be dropped, where espeak-ng changes the language, say
seeds=1                 # runs of each system
lanes=1                 # systems trained or decoded at a time
processes=1             # processes (GPUs) that train one system
jobs=2                  # processes for formatting

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seeds lanes processes jobs
[[ $setting =~ ^(one_to_one|many_to_one|many_to_many)$ ]] || die "--setting must be one_to_one, many_to_one or many_to_many, got '$setting'"
[[ $size =~ ^(base|large)$ ]] || die "--size must be base or large, got '$size'"
[[ $vocabulary =~ ^(shared|separate)$ ]] || die "--vocabulary must be shared or separate, got '$vocabulary'"
[[ $held_out =~ ^(speakers|clips)$ ]] || die "--held-out must be speakers or clips, got '$held_out'"
[[ $setting != one_to_one ]] || sources=${sources:-en}
sources=${sources:-en,es,fr,it}
for language in ${targets//,/ }; do
  [[ ,$sources, != *,$language,* ]] || die "--targets: $language is one of --sources ($sources)"
done
[[ $vocabulary == shared || $setting == many_to_many ]] || die "--vocabulary separate is for --setting many_to_many"

choose_systems .
# Symbols of several languages are told apart in pre-training, as published.
of_sources=shared
[[ $sources != *,* ]] || of_sources=separate
models=$methods
[[ $size == base ]] || models=${methods//,/_large,}_large
groups=${targets//,/ }  # what a model is fine-tuned on
[[ $setting != many_to_many ]] || groups=$targets
files=()
for group in $groups; do files+=("$work/exp/systems/${setting}_${size}_$vocabulary/${group//,/_}.yaml"); done

# shellcheck source=local/functions.sh
. local/functions.sh

if stage 0 "download by hand: the corpus and the lists"; then
  [[ -d $corpus_dir ]] || die "--corpus-dir: '$corpus_dir' is no folder; commonvoice.mozilla.org has the corpus, nothing is downloaded"
  [[ -d $splits ]] || die "--splits: '$splits' is no folder; README.md tells what belongs there"
fi

if stage 1 "data preparation"; then
  python local/data.py "${corpus_dir:?}" "${splits:?}" "$work/data" --sources "$sources" --targets "$targets" \
    --held-out "$held_out"
fi

if stage 2 "validate, format audio, phones for text"; then
  format=(speechkit format --jobs "$jobs" --force "$force")
  for language in ${sources//,/ }; do
    "${format[@]}" --data "$work/data/${language}_labelled" --out "$work/dump/${language}_labelled" --max-drop 0.02
    "${format[@]}" --data "$work/data/${language}_labelled_dev" --out "$work/dump/${language}_labelled_dev" --kind evaluation
    for set in labelled labelled_dev; do spell "${language}_$set" "$of_sources"; done
  done
  for language in ${targets//,/ }; do
    "${format[@]}" --data "$work/data/${language}_unlabelled" --out "$work/dump/${language}_unlabelled" --max-drop 0.02
    for set in train dev test; do
      "${format[@]}" --data "$work/data/${language}_$set" --out "$work/dump/${language}_$set" --kind evaluation
      spell "${language}_$set" "$vocabulary"
    done
  done
fi

if stage 3 "tokens: phones of the sources, and of what is fine-tuned on"; then
  learn_phones labelled "$of_sources" "$sources"
  join labelled_dev "$of_sources" "$sources"
  for group in $groups; do
    learn_phones train "$vocabulary" "$group"
    join dev "$vocabulary" "$group"
    python local/systems.py "$systems" "$work/exp/systems/${setting}_${size}_$vocabulary/${group//,/_}.yaml" \
      --setting "$setting" --sources "$sources" --targets "$group" --source-vocabulary "$of_sources" \
      --vocabulary "$vocabulary" --methods "$models"
  done
fi

if stage 4 "pre-train"; then
  of_groups pretrained --stage 5 --processes "$processes"  # as stage 5 trains: with tokens
fi

if stage 5 "fine-tune"; then
  of_groups finetuned --stage 5 --processes "$processes"
fi

if stage 6 "decode"; then
  of_groups finetuned --stage 6
fi

if stage 7 "score: phones, without the languages that they are told apart by"; then
  for language in ${targets//,/ }; do
    speechkit score --unit phone --data "$work/dump/${language}_test_$vocabulary" --force "$force" \
      "$work"/exp/finetuned_*/seed*/"decode_${language}_test_${vocabulary}"_*
  done
fi

if stage 8 "report: RESULTS.md"; then
  python local/report.py "$work" "$work"/exp/systems/*/*.yaml
fi

finish
