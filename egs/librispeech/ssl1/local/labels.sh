#!/usr/bin/env bash
# Clusters frames of the training sets and labels them and the dev set: the targets of HuBERT.
#   local/labels.sh WORK NAME CLUSTERS FRAMES feature=value ...
# makes WORK/exp/NAME/centres (from FRAMES frames) and km_<end of NAME>.txt in the data directories.
set -euo pipefail
(( $# > 4 )) || { echo "usage: $0 WORK NAME CLUSTERS FRAMES feature=value ..." >&2; exit 2; }
work=$1 name=$2 clusters=$3 frames=$4
shift 4
dump=../asr1/$work/dump
train=("$dump"/train_{clean_100,clean_360,other_500})
device=$(python -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
options=(--clusters "$clusters" --max-frames "$frames" --device "$device")
[[ $1 != name=encoder || $device == cpu ]] || set -- "$@" device="$device"
speechkit kmeans train --data "${train[@]}" --out "$work/exp/$name/centres" "${options[@]}" "$@"
speechkit kmeans apply --model "$work/exp/$name/centres" --name "${name##*_}" --data "${train[@]}" "$dump/dev_other"
