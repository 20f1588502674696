# shellcheck shell=bash
# Sourced by run.sh and by Kaldi's job scripts: finds the toolkit above this folder and enters its environment
# (set up on first use). A recipe outside a checkout names it by SPEECHKIT_ROOT.
_above=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
while [[ -n $_above && ! -f $_above/tools/setup.sh ]]; do _above=${_above%/*}; done
SPEECHKIT_ROOT=${_above:-${SPEECHKIT_ROOT:?no SpeechKit above this recipe}}
# shellcheck source=../../../tools/env.sh
. "$SPEECHKIT_ROOT/tools/env.sh"
