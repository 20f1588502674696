# shellcheck shell=bash
# Where jobs run. Every runner is called as: $decode_cmd [--mem 4G ...] JOB=1:8 log/decode.JOB.log command ...
# SPEECHKIT_JOBS=slurm, or edit this file; options for Slurm partitions go into conf/slurm.conf. Kaldi's own
# queue.pl or slurm.pl on PATH works in the same place.
case ${SPEECHKIT_JOBS:-local} in
  local) export train_cmd=run_local.py decode_cmd=run_local.py ;;
  slurm) export train_cmd="run_slurm.py --gpu 1" decode_cmd=run_slurm.py ;;
  *) echo "SPEECHKIT_JOBS must be local or slurm, not '$SPEECHKIT_JOBS'" >&2; exit 2 ;;
esac
