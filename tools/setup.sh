#!/usr/bin/env bash
# Sets SpeechKit up: system programs, a virtual environment, torch, the package itself, optional parts.
#
#   tools/setup.sh [--dry-run] [part ...]      parts: espnet warp-rnnt phones video dev bench kenlm
#   tools/setup.sh --check [part ...]          exit 0 when all of it is there and up to date, 1 when not
#
# Run it as often as you like: what is done already is skipped. Variables: PYTHON (which interpreter),
# SPEECHKIT_VENV (where the environment goes, default .venv), SPEECHKIT_TORCH (default torch==2.13.0).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$(realpath -ms "${SPEECHKIT_VENV:-$root/.venv}")
stamp=$venv/speechkit.stamp            # what is installed: a line "<part> <hash>" each
unfinished=$venv/speechkit.unfinished  # there from the first moment until a new environment is complete
torch_version=${SPEECHKIT_TORCH:-torch==2.13.0}
cpu_index=https://download.pytorch.org/whl/cpu
known_parts=(espnet warp-rnnt phones video dev bench kenlm)

say() { echo "setup: $*" >&2; }
die() { echo "setup: error: $*" >&2; exit "${status:-1}"; }
have() { command -v "$1" >/dev/null 2>&1; }
run() { local shown=$*; say "\$ ${shown#as_root }"; $dry_run || "$@"; }

# ---- what is there already -------------------------------------------------------------------------------

installer() {  # the script that installs part $1, if it has one
  case $1 in
    decoders) echo "$root/tools/install_decoders.sh" ;;
    *) echo "$root/tools/install_${1//-/_}.sh" ;;
  esac
}

part_hash() {  # changes when the part's list of packages or its installer does
  local files=("$root/setup.py")
  [[ -f $(installer "$1") ]] && files+=("$(installer "$1")")
  { echo "$root"; cat "${files[@]}"; } | sha256sum | cut -c 1-16
}

is_done() {
  [[ -x $venv/bin/python && ! -e $unfinished && -f $stamp ]] && grep -qx "$1 $(part_hash "$1")" "$stamp"
}

record() {
  $dry_run && return
  { grep -v "^$1 " "$stamp" 2>/dev/null || true; echo "$1 $(part_hash "$1")"; } >"$stamp.tmp"
  mv "$stamp.tmp" "$stamp"
}

# ---- system programs -------------------------------------------------------------------------------------

as_root() {  # runs a command as root, or fails when that cannot be
  if (( $(id -u) == 0 )); then "$@"; else sudo "$@"; fi
}

can_use_apt() { have apt-get && { (( $(id -u) == 0 )) || have sudo; }; }

apt_updated=false
apt_install() {
  if ! $apt_updated; then
    # A stale list of one repository must not stop us: the install below is what has to succeed.
    run as_root apt-get update -qq </dev/null >&2 || say "apt-get update had problems; going on"
    apt_updated=true
  fi
  run as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2
}

system_packages() {  # $1: required or optional; then program:package pairs
  local importance=$1 pair missing=() names=()
  shift
  for pair in "$@"; do
    have "${pair%%:*}" || [[ -x /usr/lib/sctk/bin/${pair%%:*} ]] || missing+=("$pair")
  done
  (( ${#missing[@]} )) || { say "system programs are there: ${*%%:*}"; return 0; }
  for pair in "${missing[@]}"; do names+=("${pair#*:}"); done
  if can_use_apt; then
    say "installing system packages with apt: ${names[*]}"
    apt_install "${names[@]}" && return 0
    [[ $importance == optional ]] || die "apt could not install: ${names[*]}"
  fi
  if [[ $importance == optional ]]; then
    say "without ${names[*]} some checks are skipped; install it with your system's package manager"
    return 0
  fi
  die "cannot install system packages here (no apt-get, or neither root nor sudo);" \
    "install these, then run this again: ${names[*]}"
}

find_python() {  # prints an interpreter of 3.10 or newer that can make virtual environments
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    have "$candidate" || continue
    "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
    command -v "$candidate"
    return 0
  done
  return 1
}

ensure_python() {  # sets $python
  local minor
  python=$(find_python) && return 0
  if can_use_apt; then
    say "no Python 3.10+ with the venv module: installing it with apt"
    apt_install python3 python3-venv || true
    python=$(find_python) && return 0
    # An extra Python of one's own has its venv module in a package of its own.
    if have python3 && minor=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'); then
      apt_install "python$minor-venv" || true
      python=$(find_python) && return 0
    fi
    $dry_run && python=python3 && return 0
  fi
  die "Python 3.10 or newer with the venv module is needed (packages python3 and python3-venv)," \
    "or name an interpreter: PYTHON=/path/to/python3 tools/setup.sh"
}

# ---- the Python environment ------------------------------------------------------------------------------

ensure_venv() {
  if [[ -e $unfinished ]]; then
    say "an earlier set-up was interrupted; making $venv again"
    run rm -rf "$venv"
  elif [[ -f $venv/bin/activate ]] && ! grep -qF "$venv" "$venv/bin/activate"; then
    say "$venv was copied from another place; making it again"
    run rm -rf "$venv"
  fi
  [[ -x $venv/bin/python ]] && { say "using the environment $venv"; return 0; }
  ensure_python
  say "making a virtual environment in $venv with $python"
  $dry_run && return
  mkdir -p "$venv"
  : >"$unfinished"
  "$python" -m venv "$venv"
}

pip_install() {  # on a terminal with pip's progress bars, in logs only what goes wrong
  local quiet=-qq
  [[ -t 2 ]] && quiet=
  run "$venv/bin/python" -m pip install $quiet --disable-pip-version-check "$@" </dev/null >&2
}

reachable() {  # $1: URL; a few seconds are enough for a yes
  "$venv/bin/python" - "$1" 2>/dev/null <<'END'
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=4).close()
END
}

install_torch() {  # before everything that depends on it, so that nothing else chooses the build
  local version
  if version=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null); then
    say "torch $version is there"
  elif have nvidia-smi && nvidia-smi -L 2>/dev/null | grep -q GPU; then
    say "NVIDIA GPU found: $torch_version with CUDA from pip's own configuration"
    pip_install "$torch_version"
  elif ! $dry_run && reachable "$cpu_index/torch/"; then
    say "no NVIDIA GPU: $torch_version for CPU from $cpu_index"
    pip_install "$torch_version" --index-url "$cpu_index"
  else
    say "no NVIDIA GPU, PyTorch's CPU index cannot be reached: $torch_version from pip's own configuration"
    pip_install "$torch_version"
  fi
}

install_core() {
  system_packages required sox:sox espeak-ng:espeak-ng flac:flac
  ensure_venv
  $dry_run || rm -f "$stamp.tmp"
  install_torch
  say "installing speechkit in editable mode with its dependencies"
  pip_install -e "$root"
  record core
  $dry_run || rm -f "$unfinished"
}

install_part() {
  local part=$1 script code=0
  script=$(installer "$part")
  is_done "$part" && { say "part $part is up to date"; return 0; }
  if [[ $part == bench ]]; then
    install_part espnet
    install_part decoders
  elif [[ -f $script ]]; then
    say "installing part $part with ${script#"$root"/}"
    local arguments=()
    [[ $part == espnet ]] && arguments=("$venv")  # decoders and kenlm have an environment of their own
    PYTHON=$venv/bin/python run bash "$script" ${arguments[@]+"${arguments[@]}"} </dev/null || code=$?
    # Status 3 is an installer's word for "not on this machine": it has said why, the rest goes on.
    (( code == 3 )) && { say "part $part is left out on this machine"; return 0; }
    (( code == 0 )) || die "part $part: ${script#"$root"/} failed (status $code)"
  elif [[ " phones video dev " == *" $part "* ]]; then
    [[ $part == dev ]] && system_packages optional sclite:sctk
    say "installing part $part: pip install -e .[$part]"
    pip_install -e "${root}[$part]"
  else
    die "part $part: this checkout has no ${script#"$root"/}"
  fi
  record "$part"
}

# ---- command line ----------------------------------------------------------------------------------------

dry_run=false check=false parts=()
for argument in "$@"; do
  case $argument in
    --dry-run) dry_run=true ;;
    --check) check=true ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *)
      [[ " ${known_parts[*]} " == *" $argument "* ]] || status=2 die "unknown part '$argument'; parts: ${known_parts[*]}"
      parts+=("$argument") ;;
  esac
done

if $check; then
  for part in core ${parts[@]+"${parts[@]}"}; do is_done "$part" || exit 1; done
  exit 0
fi

if have flock && ! $dry_run; then  # two recipes started at once set up one after the other
  exec 9<"${BASH_SOURCE[0]}"
  flock -n 9 || { say "another set-up is running; waiting for it"; flock 9; }
fi
if is_done core; then say "core is up to date ($venv)"; else install_core; fi
for part in ${parts[@]+"${parts[@]}"}; do install_part "$part"; done
$dry_run && { say "dry run: nothing was changed"; exit 0; }
say "done; \`source $venv/bin/activate && speechkit doctor\` looks at this machine"
