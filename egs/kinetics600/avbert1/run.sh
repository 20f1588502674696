#!/usr/bin/env bash
# AV-BERT on the clips of Kinetics-600: frames and sound become patches, patches clusters, and two models learn to tell
# the clusters of masked patches, one from sound alone.
#   ./run.sh --corpus-dir /path/to/k600 --device cuda --processes 8   everything; nothing is downloaded
#   ./run.sh --corpus-dir /path/to/k600 --methods av_bert_a           sound alone
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

stage=0              # first stage to run
stop_stage=8         # last stage to run
list_stages=false    # print the stages and stop
force=false          # make again what is up to date
quick=false          # small pictures, few clusters and updates, in quick/: a check of the machinery, no result
corpus_dir=          # Kinetics-600, the folder with train and val in it
lists=               # folder of train.csv and val.csv; empty looks into the corpus and its folder annotations
unlisted=false       # take the clips that no list names too
max_missing=0.2      # largest share of a list whose clips may be gone
max_drop=0.2         # largest share of the clips that may be of no use, such as those without sound
methods=all          # systems of conf/systems.yaml, between commas
seeds=1              # runs of each system
device=cpu           # where clusters are computed, such as cuda
lanes=1              # systems trained at a time
processes=1          # processes (GPUs) that train one system
jobs=2               # processes for decoding and reading

. ./path.sh
. recipe.sh
. parse_options.sh
. ./cmd.sh
check_int stage stop_stage seeds lanes processes jobs

choose_systems .
size=256 clusters_video=8192 clusters_audio=4096 batch=16384
[[ $quick != true ]] || size=32 clusters_video=24 clusters_audio=16 batch=2048
kmeans=(speechkit kmeans train --data "$work/dump/train" --batch "$batch" --device "$device" --jobs "$jobs" --force "$force")

if stage 1 "data preparation: the clips that are there"; then
  [[ -n $corpus_dir ]] || die "--corpus-dir: name Kinetics-600, the folder with train and val in it"
  python local/data.py "$corpus_dir" "$work/data" ${lists:+--lists "$lists"} --max-missing "$max_missing" \
    --unlisted "$unlisted"
fi

if stage 2 "decode and format clips, statistics of features, clusters of patches"; then
  for set in train val; do
    # A clip of ten seconds that is longer is not what its list says. Clips without sound teach neither model.
    speechkit video --data "$work/data/$set" --out "$work/dump/$set" --audio true --size "$size" --max-seconds 11 \
      --max-drop "$max_drop" --jobs "$jobs" --force "$force"
  done
  speechkit features --data "$work/dump/train" --dump false --cmvn true --jobs "$jobs" --force "$force" \
    bins=64 snip_edges=false
  "${kmeans[@]}" --out "$work/data/km_video" --clusters "$clusters_video" name=video_patches \
    size="$size" statistics="$work/dump/train/video_stats.json"
  "${kmeans[@]}" --out "$work/data/km_audio" --clusters "$clusters_audio" name=audio_patches \
    statistics="$work/dump/train/cmvn.json"
  for modality in video audio; do
    speechkit kmeans apply --model "$work/data/km_$modality" --data "$work/dump/train" "$work/dump/val" --name "$modality" \
      --device "$device" --jobs "$jobs" --force "$force"
  done
fi

if stage 4 "pre-train"; then
  "${matrix[@]}" --stage 4 --processes "$processes"
fi

if stage 7 "score: curves, and a clip of val told from what is not masked"; then
  for exp in "$work"/exp/av_bert_*/seed1; do
    speechkit picture curves --exp "$exp" --out "$work/images/curves_$(basename "${exp%/seed1}").png"
  done
  [[ ! -d $work/exp/av_bert_av/seed1/final ]] || speechkit picture clusters --model "$work/exp/av_bert_av/seed1" \
    --codebook "$work/data/km_video" --data "$work/dump/val" --out "$work/images/clusters.png"
fi

if stage 8 "report: RESULTS.md"; then
  python local/report.py "$work" "$systems"
fi

finish
