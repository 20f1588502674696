# shellcheck shell=bash
# Sourced after a script has set its defaults: `--some-name value` sets the variable some_name.
#
# Everything that is not understood ends the script with status 2: an option without a variable, a missing
# value, --name=value, something other than true/false for a variable that holds true or false. No option
# reads or runs a file. Arguments that are no options are refused too, unless the script sets
# takes_arguments=true before; then they are left in "$@". `--help` prints the defaults with their comments.

_option_error() { echo "$0: error: $*; see $0 --help" >&2; exit 2; }

# Only plain variables of the script itself are options: not the environment's, not arrays, not ours.
_is_option() {
  [[ $1 =~ ^[a-z][a-z0-9_]*$ && $1 != takes_arguments && -v $1 ]] || return 1
  local -n _variable=$1
  [[ ${_variable@a} != *[aAxr]* ]]
}

_print_options() {
  echo "usage: $0 [--option value ...]"
  sed -nE '/parse_options\.sh/q
    s/^([a-z][a-z0-9_]*)=([^(#][^#]*)?(# *(.*))?$/\1\x1f\4\x1f\2/; T; s/ +$//p' "$0" |
    while IFS=$'\x1f' read -r name about value; do
      printf '  --%-14s %s (default: %s)\n' "${name//_/-}" "$about" "$value"
    done
}

while (( $# )); do
  case $1 in
    -h | --help) _print_options; exit 0 ;;
    --) shift; break ;;
    --*=*) _option_error "$1: write option and value as two words, '${1%%=*} ${1#*=}'" ;;
    --*)
      _name=${1#--}
      [[ $_name != *_* ]] || _option_error "unknown option $1 (words are joined by hyphens)"
      _name=${_name//-/_}
      _is_option "$_name" || _option_error "unknown option $1"
      if (( $# == 1 )) || [[ $2 == --* ]]; then _option_error "option $1 needs a value"; fi
      if [[ ${!_name} == true || ${!_name} == false ]] && [[ $2 != true && $2 != false ]]; then
        _option_error "option $1 takes true or false, got '$2'"
      fi
      printf -v "$_name" %s "$2"
      shift 2 ;;
    -*) _option_error "unknown option $1" ;;
    *) break ;;
  esac
done
(( $# == 0 )) || [[ ${takes_arguments:-false} == true ]] || _option_error "unexpected argument '$1'"
