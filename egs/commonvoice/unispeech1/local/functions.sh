# shellcheck shell=bash disable=SC2154
# What run.sh does for several languages or fine-tunings; its options and paths are those of run.sh.

# of_groups STAGE: runs a stage of the matrix for each fine-tuning, of the systems that begin with $1.
of_groups() {
  local file
  for file in "${files[@]}"; do
    speechkit matrix --systems "$file" --work "$work" --methods "$1_*" --seeds "$seeds" --lanes "$lanes" --force "$force" \
      "${@:2}"
  done
}

# spell SET VOCABULARY: the set with phones for text.
spell() {
  local language=${1%%_*}
  [[ $language != en ]] || language=en-us
  [[ $language != fr ]] || language=fr-fr
  speechkit phonemize --data "$work/dump/$1" --out "$work/dump/${1}_$2" --language "$language" --vocabulary "$2" \
    --cache "$work/data/.phones" --evaluation false --max-drop "$max_drop" --force "$force"
}

# join SET VOCABULARY LANGUAGES: one directory for the set of several languages; a single one has it already.
join() {
  local language parts=()
  [[ $3 == *,* ]] || return 0
  for language in ${3//,/ }; do parts+=("$work/dump/${language}_$1_$2"); done
  speechkit combine "$work/dump/${3//,/_}_$1_$2" "${parts[@]}" --drop-partial true --force "$force"
}

# learn_phones SET VOCABULARY LANGUAGES: the phones of a set of these languages as tokens.
learn_phones() {
  local language texts=()
  for language in ${3//,/ }; do texts+=("$work/dump/${language}_$1_$2/text"); done
  speechkit tokenizer --kind phone --text "${texts[@]}" --out "$work/data/tokens/${3//,/_}_$2" --force "$force"
}
