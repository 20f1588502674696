#!/usr/bin/env bash
# English from a grammar, spoken by espeak-ng: synthesis to a WER table in minutes, nothing to download.
#   ./run.sh                                   CTC, a BERT of the corpus's words, rescoring by it, and Wav-BERT
#   ./run.sh --methods ctc                     CTC alone: greedy, with a lexicon, with a 4-gram
#   ./run.sh --comparison transfer --seeds 3 --lanes 2
#                                              attention decoders and transducers, taught by BERT or not
#   ./run.sh --methods all --seeds 3 --lanes 2 the whole comparison: every baseline, ablation and control
#   ./run.sh --stage 5 --stop-stage 7 training, decoding, scoring
#   ./run.sh --quick true             a small version that only shows that all parts work
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0              # first stage to run
stop_stage=8         # last stage to run
list_stages=false    # print the stages and stop
force=false          # make again what is up to date
quick=false          # tiny corpus, few updates, in quick/: a check of the machinery, no result
far_cues=text        # "text": only the text-only set shows the far cues; "speech": labelled speech too (in far_cues_speech/)
unlabelled=false     # true: also speak what ../ssl1 pre-trains on
seed=1               # seed of the corpus
comparison=fusion    # fusion: CTC and what joins it to a BERT; transfer: attention decoders and transducers
methods=             # systems of the comparison or patterns, between commas, or all (which --quick takes)
seeds=1              # seeds per system
lanes=1              # systems trained at a time, which share the processes; 2 is faster with many systems
jobs=2               # processes for synthesis, formatting, features and the training of a system
order=4              # of the n-gram model
pieces=200           # of the systems that have pieces of their own

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seed seeds lanes jobs order pieces
[[ $comparison =~ ^(fusion|transfer)$ ]] || die "--comparison must be fusion or transfer, got '$comparison'"

sets=(train dev test hard)
spoken=("${sets[@]}")
[[ $unlabelled != true ]] || spoken+=(unlabelled)  # ../ssl1 formats it
work=.
[[ $far_cues == text ]] || work=far_cues_$far_cues
systems=conf/systems.yaml reported=conf/systems_transfer.yaml  # which holds those of systems.yaml too
if [[ $comparison == transfer ]]; then
  systems=$reported methods=${methods:-bert*,ctc,las*,transducer*}
fi
sizes=()
if [[ $quick == true ]]; then
  work=quick
  systems=conf/systems_quick.yaml reported=conf/systems_quick.yaml
  methods=${methods:-all}
  sizes=(--train 160 --dev 30 --test 40 --hard 20 --unlabelled 40 --text 4000)
fi
methods=${methods:-bert*,ctc,wavbert}
each=$((jobs > lanes ? jobs / lanes : 1))  # processes of a training
matrix=(speechkit matrix --systems "$systems" --work "$work" --methods "$methods" --seeds "$seeds" --force "$force")

if stage 0 "synthesise the corpus"; then
  python local/synthesise.py --out "$work/downloads/mini_en" --sets text "${spoken[@]}" --seed "$seed" \
    --far-cues "$far_cues" --jobs "$jobs" --force "$force" "${sizes[@]}"
fi

if stage 1 "data preparation: Kaldi directories, text-only set"; then
  python local/data.py "$work/downloads/mini_en" "$work/data" "${spoken[@]}"
fi

if stage 2 "validate, format audio, features"; then
  for set in "${sets[@]}"; do
    kind=evaluation; [[ $set == train ]] && kind=train
    speechkit format --data "$work/data/$set" --out "$work/dump/$set" --kind "$kind" --jobs "$jobs" --force "$force"
  done
  speechkit features --data "$work/dump/train" --cmvn true --speeds 0.9 1.1 --jobs "$jobs" --force "$force"
  speechkit features --data "$work/dump/dev" --data "$work/dump/test" --data "$work/dump/hard" --jobs "$jobs" \
    --force "$force"
  speechkit leakage --train "$work/dump/train" --test "$work"/dump/{dev,test,hard} \
    --text "$work/data/lm/text" --jobs "$jobs"
fi

if stage 3 "tokens, lexicon, language models"; then
  speechkit tokenizer --text "$work/data/train/text" --kind char --check "$work/data/dev/text" \
    --out "$work/data/tokens/char" --force "$force"
  speechkit bert-vocab --text "$work/data/sentences/text" "$work/data/train/text" --tokenizer "$work/data/tokens/char" \
    --whole-words true --out "$work/data/bert" --force "$force"
  speechkit tokenizer --text "$work/data/train/text" --kind wordpiece --vocab "$work/data/bert" --specials both \
    --out "$work/data/tokens/bert" --force "$force"
  speechkit tokenizer --text "$work/data/train/text" --kind bpe --size "$pieces" --check "$work/data/dev/text" \
    --out "$work/data/tokens/bpe" --force "$force"
  # A grammar repeats its words more evenly than people do: the unigram counts need the fallback discounts.
  speechkit ngram train --text "$work/data/lm/text" --order "$order" --discount-fallback true \
    --out "$work/data/lm/${order}gram.arpa" --force "$force"
fi

if stage 4 "pre-train a BERT on the corpus's words, and the encoders that are asked for"; then
  encoders=$("${matrix[@]}" --stage 5 --dry-run true | grep -o '\.\./ssl1/exp/[^/]*' | sort -u | paste -sd, || true)
  [[ -z $encoders ]] || ../ssl1/run.sh --stop-stage 4 --methods "${encoders//..\/ssl1\/exp\/}" --seeds "$seeds" \
    --lanes "$jobs" --jobs "$jobs"
  "${matrix[@]}" --stage 4 --processes "$each" --lanes "$lanes"
fi

if stage 5 "train"; then
  "${matrix[@]}" --stage 5 --processes "$each" --lanes "$lanes"
fi

if stage 6 "decode"; then
  "${matrix[@]}" --stage 6 --lanes "$jobs"
fi

if stage 7 "score"; then
  "${matrix[@]}" --stage 7 --lanes "$jobs"
fi

if stage 8 "report: RESULTS.md and plots"; then
  speechkit report --exp "$work/exp" --systems "$reported" --out "$work/RESULTS.md"
fi

finish
