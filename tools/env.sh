# shellcheck shell=bash
# Sourced by every path.sh, which sets SPEECHKIT_ROOT: sets up on first use, then enters the environment.
# SPEECHKIT_VENV=active stays in the environment that is active (conda's, say) and never sets anything up.
export SPEECHKIT_ROOT
if [[ ${SPEECHKIT_VENV:-} != active ]]; then
  if ! "$SPEECHKIT_ROOT/tools/setup.sh" --check; then
    echo "SpeechKit is not set up yet (or its requirements changed); running tools/setup.sh" >&2
    "$SPEECHKIT_ROOT/tools/setup.sh" || exit 1
  fi
  # shellcheck disable=SC1091  # made by setup.sh
  . "${SPEECHKIT_VENV:-$SPEECHKIT_ROOT/.venv}/bin/activate"
fi
export PATH="$SPEECHKIT_ROOT/utils:$PATH"
export LC_ALL=C.UTF-8 PYTHONHASHSEED=0 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
