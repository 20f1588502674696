#!/usr/bin/env bash
# AV-BERT: scenes that are seen and heard teach what noise sounds like; recognisers of noisy speech read what it learnt.
#   ./run.sh                          the corpus, pre-training with and without video, recognition in noise; RESULTS.md
#   ./run.sh --quick true             one seed, fewer clips and updates; in quick/
#   ./run.sh --methods 'pre_a,pre_av,baseline,a,av,transducer_*' --seeds 1    transducers, which are not run by default
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0              # first stage to run
stop_stage=8         # last stage to run
list_stages=false    # print the stages and stop
force=false          # make again what is up to date
quick=false          # one seed, fewer clips and shorter trainings, in quick/
corpus=full          # "small": the quick corpus of ../../mini_en/asr1, too little to learn from; checks the machinery
methods=             # comma-separated systems of conf/systems.yaml, or patterns; empty takes all but the transducers
seeds=               # seeds per system; empty takes the number in conf/systems.yaml
lanes=2              # trainings at a time, which share the cores
jobs=2               # processes for synthesis, formatting, features and labels

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage lanes jobs
[[ $corpus =~ ^(full|small)$ ]] || die "--corpus must be full or small, got '$corpus'"

work=. systems=conf/systems.yaml sizes=()
if [[ $quick == true ]]; then
  work=quick methods=${methods:-all} systems=conf/systems_quick.yaml sizes=(--clips-train 400 --clips-test 100)
fi
sibling=../../mini_en/asr1 sibling_options=(--unlabelled true --jobs "$jobs" --force "$force") speech=$sibling/downloads/mini_en
if [[ $corpus == small ]]; then
  work=quick/small sizes=(--clips-train 12 --clips-dev 4 --clips-test 5)
  sibling_options+=(--quick true) speech=$sibling/quick/downloads/mini_en
fi
methods=${methods:-pre_*,baseline,a,av,av_literal}
clips=(clips_train clips_dev clips_test) tests=(test_clean test_10db test_0db)
matrix=(speechkit matrix --systems "$systems" --work "$work" --methods "$methods" ${seeds:+--seeds "$seeds"} \
  --force "$force")

if stage 0 "synthesise the corpus: clips of scenes, and the speech of mini_en in their noise"; then
  "$sibling/run.sh" --stage 0 --stop-stage 0 "${sibling_options[@]}"
  python local/corpus.py --speech "$speech" --out "$work/downloads/mini_av" --jobs "$jobs" --force "$force" "${sizes[@]}"
fi

if stage 1 "data preparation: Kaldi directories"; then
  python local/data.py "$work/downloads/mini_av" "$work/data"
fi

if stage 2 "decode the clips, format audio, features; nothing shared between what is learnt from and what is held out"; then
  for set in "${clips[@]}"; do
    kind=evaluation; [[ $set == clips_train ]] && kind=train
    speechkit video --data "$work/data/$set" --out "$work/dump/$set" --kind "$kind" --size 64 --audio true \
      --jobs "$jobs" --force "$force"
  done
  speechkit features --data "$work/dump/clips_train" --cmvn true --jobs "$jobs" --force "$force" bins=64 snip_edges=false
  for set in train dev "${tests[@]}"; do
    kind=evaluation; [[ $set == train ]] && kind=train
    speechkit format --data "$work/data/$set" --out "$work/dump/$set" --kind "$kind" --link true --jobs "$jobs" --force "$force"
  done
  for set in clips_dev clips_test train dev "${tests[@]}"; do
    speechkit features --data "$work/dump/$set" --jobs "$jobs" --force "$force" bins=64 snip_edges=false
  done
  speechkit leakage --train "$work"/dump/{clips_train,train} --test "$work/dump/dev" "${tests[@]/#/$work/dump/}"
fi

if stage 3 "tokens: characters; clusters of audio and of video patches"; then
  speechkit tokenizer --text "$work/data/train/text" --kind char --check "$work/data/dev/text" \
    --out "$work/data/tokens/char" --force "$force"
  for modality in audio video; do
    options=("statistics=$work/dump/clips_train/cmvn.json")
    [[ $modality == audio ]] || options=("statistics=$work/dump/clips_train/video_stats.json" size=64)
    speechkit kmeans train --data "$work/dump/clips_train" --out "$work/data/km_$modality" --clusters 128 \
      --max-frames 50000 --restarts 3 --jobs "$jobs" --force "$force" \
      "name=${modality}_patches" "${options[@]}"
    speechkit kmeans apply --model "$work/data/km_$modality" --data "${clips[@]/#/$work/dump/}" --name "$modality" \
      --jobs "$jobs" --force "$force"
  done
fi

if stage 4 "pre-train on clips, with and without their video"; then
  "${matrix[@]}" --stage 4 --lanes "$lanes"
fi

if stage 5 "train recognisers of noisy speech"; then
  "${matrix[@]}" --stage 5 --lanes "$lanes"
fi

if stage 6 "decode"; then
  "${matrix[@]}" --stage 6 --lanes "$lanes"
fi

if stage 7 "score; masked sound of held-out clips, told with and without their video"; then
  "${matrix[@]}" --stage 7 --lanes "$lanes"
  python local/masked_audio.py "$work/exp" "$work/dump/clips_test"
fi

if stage 8 "report: RESULTS.md and pictures"; then
  [[ ! -d $work/exp/pre_av/seed1/final ]] || speechkit picture clusters --model "$work/exp/pre_av/seed1" \
    --codebook "$work/data/km_video" --data "$work/dump/clips_test" --out "$work/exp/clusters_of_a_clip.png"
  for exp in "$work"/exp/pre_a*/seed1; do
    speechkit picture curves --exp "$exp" --out "$work/exp/masked_tokens_over_training_$(basename "${exp%/seed1}").png"
  done
  [[ ! -d $work/exp/av/seed1/final ]] || speechkit picture context --model "$work/exp/av/seed1" \
    --data "$work/dump/test_0db" --out "$work/exp/audio_tokens_that_speech_frames_read.png"
  speechkit report --exp "$work/exp" --systems "$systems" --out "$work/RESULTS.md" \
    --tables "$work"/exp/masked_audio{,_tests}.json --pictures "$work"/exp/*.png
fi

finish
