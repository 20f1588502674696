# shellcheck shell=bash disable=SC2034,SC2154
# The sets of the corpus, and what run.sh does for several of them; its options and paths are those of run.sh.

# <language>_<set> of the sources, of the targets, and what came over the telephone.
source_trains=() source_devs=() trains=() devs=() tests=() unlabelled=()
for language in ${sources//,/ }; do
  source_trains+=("${language}_train") source_devs+=("${language}_dev")
done
for language in ${targets//,/ }; do
  trains+=("${language}_train") devs+=("${language}_dev") tests+=("${language}_test") unlabelled+=("${language}_unlabelled")
done
telephones=()
[[ $telephone == none ]] || telephones=("$telephone"_{train,dev,test}_telephone)

# spell SUFFIX VOCABULARY SET ...: copies of the sets with phones for text; nothing is dropped from dev and test.
spell() {
  local set language held_out
  for set in "${@:3}"; do
    language=${set%%_*} held_out=false
    [[ $set == *_train ]] || held_out=true
    speechkit phonemize --data "$work/data/$set" --out "$work/data/${set}_$1" --language "${language/#en/en-us}" \
      --vocabulary "$2" --evaluation "$held_out" --force "$force"
  done
}

# prepare SET ...: checks the sets, formats their audio and computes features; statistics come from English.
prepare() {
  local set kind without_text statistics
  for set in "$@"; do
    kind=evaluation without_text=false statistics=false
    [[ $set != *_train* && $set != *_unlabelled ]] || kind=train
    [[ $set != *_unlabelled ]] || without_text=true
    [[ $set != en_train_phn ]] || statistics=true
    speechkit validate "$work/data/$set" --no-text "$without_text"
    speechkit format --data "$work/data/$set" --out "$work/dump/$set" --kind "$kind" --link true --jobs "$jobs" \
      --force "$force"
    speechkit features --data "$work/dump/$set" --cmvn "$statistics" --jobs "$jobs" --force "$force"
  done
}

# join NAME SET ...: one set of several.
join() {
  speechkit combine "$work/dump/$1" "${@:2}" --drop-partial true --force "$force"
}

# separate: fails when a voice or a sentence of dev or test is in what is learnt from, or one of test in dev.
separate() {
  local data=$work/data
  local labelled=("${source_trains[@]}" "${source_devs[@]}")
  local learnt=("${trains[@]}" "${unlabelled[@]}" "${telephones[@]:0:1}")
  local held_out=("${devs[@]}" "${tests[@]}" "${telephones[@]:1}")
  speechkit leakage --pretrain "${labelled[@]/#/$data/}" --train "${learnt[@]/#/$data/}" --test "${held_out[@]/#/$data/}"
  speechkit leakage --train "${devs[@]/#/$data/}" --test "${tests[@]/#/$data/}"
}

# learn NAME KIND CHECKED SET ...: the tokens of the texts of these sets; CHECKED has no others, or is none.
learn() {
  local texts=("${@:4}") check=()
  texts=("${texts[@]/#/$work/data/}")
  [[ $3 == none ]] || check=(--check "$work/data/$3/text")
  speechkit tokenizer --kind "$2" --text "${texts[@]/%//text}" --out "$work/data/tokens/$1" "${check[@]}" --force "$force"
}
