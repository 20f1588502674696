# shellcheck shell=bash
# Sourced by every run.sh, which sets stage, stop_stage and list_stages. A recipe then reads
#
#   if stage 3 "tokens"; then
#     speechkit tokenizer ...
#   fi
#   ...
#   finish

_known_stages=() _ran_stages=() _current_stage=

die() { echo "$0: error: $*" >&2; exit 2; }

# check_int NAME ...: dies unless the variables hold integers (08 is none: bash would read it as octal).
check_int() {
  local name
  for name in "$@"; do
    [[ ${!name} =~ ^(0|-?[1-9][0-9]{0,8})$ ]] || die "--${name//_/-} must be an integer, got '${!name}'"
  done
}

# stage N "name": true when stage N is to run; with --list-stages true it prints the stage instead.
stage() {
  _known_stages+=("$1")
  if [[ ${list_stages:-false} == true ]]; then
    printf '%4d  %s\n' "$1" "$2"
    return 1
  fi
  (( ${stage:?} <= $1 && $1 <= ${stop_stage:?} )) || return 1
  _ran_stages+=("$1") _current_stage="$1 ($2)"
  echo "$(date '+%F %T') stage $1: $2" >&2
}

# finish: the last line of run.sh; a range that holds no stage is a mistake, not a success.
finish() {
  _current_stage=
  [[ ${list_stages:-false} == true ]] && return 0
  (( ${#_ran_stages[@]} )) || die "no stage in [$stage, $stop_stage]; this recipe has: ${_known_stages[*]}"
  echo "$(date '+%F %T') finished stages ${_ran_stages[*]} in $SECONDS s" >&2
}

# choose_bert: sets `bert_folder`: what --bert names when that is a folder or none, else where a BERT of the hub goes.
choose_bert() {
  bert_folder=${bert:?}
  if [[ $bert == none || -d $bert ]]; then return; fi
  [[ $bert =~ ^[[:alnum:]][[:alnum:]_.-]*(/[[:alnum:]_.-]+)?$ ]] || die "--bert: no folder $bert, and no name on a hub"
  bert_folder=downloads/$bert
}

# fetch_bert: downloads what is read of a BERT of the hub; an interrupted download goes on.
fetch_bert() {
  if [[ $bert_folder == "$bert" ]]; then return; fi
  hf download "$bert" config.json tokenizer_config.json vocab.txt model.safetensors --local-dir "$bert_folder"
}

# link_bert FOLDER [NORMALISER]: says how BERT's vocabulary fits FOLDER/train/text, and makes FOLDER/bert a link to it.
link_bert() {
  speechkit bert-fit "$bert_folder" "$1/train/text" "${@:2}"
  ln -sfn "$(realpath "$bert_folder")" "$1/bert"
}

# ---- recipes that compare the systems of conf/systems.yaml --------------------------------------------------
# Their options are quick, methods, seeds, lanes, processes and force, as in egs/librispeech/asr1/run.sh.

# choose_systems FOLDER: sets `systems`, the folder `work` (FOLDER; with --quick true the same below quick) and the
# command `matrix`.
choose_systems() {
  work=$1 systems=conf/systems.yaml
  if [[ ${quick:?} == true ]]; then
    work=quick/$1 systems=conf/systems_quick.yaml
    work=${work%/.}
  fi
  matrix=(speechkit matrix --systems "$systems" --work "$work" --methods "${methods?}" --seeds "${seeds:?}"
    --lanes "${lanes:?}" --force "${force:?}")
}

# convert_checkpoint [SYSTEM FILE]: FILE (what --checkpoint names), with its --dictionary, becomes SYSTEM ("downloaded") of
# every seed.
convert_checkpoint() {
  local seed
  for ((seed = 1; seed <= seeds; seed++)); do
    speechkit convert --model "${2:-${checkpoint:?}}" --out "$work/exp/${1:-downloaded}/seed$seed/final" --force "$force" \
      ${dictionary:+--dictionary "$dictionary"}
  done
}

# compare_systems "name of stage 5": stages 5 to 8.
compare_systems() {
  if stage 5 "$1"; then
    "${matrix[@]}" --stage 5 --processes "${processes:?}"
  fi
  if stage 6 "decode"; then
    "${matrix[@]}" --stage 6
  fi
  if stage 7 "score"; then
    "${matrix[@]}" --stage 7
  fi
  if stage 8 "report: RESULTS.md and plots"; then
    speechkit report --exp "$work/exp" --systems "$systems" --out "$work/RESULTS.md"
  fi
}

_say_where_it_stopped() {
  local status=$?
  if (( status != 0 )) && [[ -n $_current_stage ]]; then
    echo "$0: stage $_current_stage failed (status $status); mend it and go on with --stage ${_current_stage%% *}" >&2
  fi
}
trap _say_where_it_stopped EXIT
