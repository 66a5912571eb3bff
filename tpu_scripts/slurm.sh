#!/usr/bin/env bash
# Queues a run of jaxssl.main on a GPU cluster with SLURM: one process for each GPU.
#
#   tpu_scripts/slurm.sh [--dry-run] NAME NODES GPUS_PER_NODE -- ARGUMENTS OF jaxssl.main
#   tpu_scripts/slurm.sh s16 4 8 -- --config=experiments/lejepa.py:imagenet1k_vit_s16 --workdir=/scratch/runs/s16
#
# It costs the GPUs for as long as the job runs, and leaves NAME.log behind where it is called (the
# root of the repository) and the workdir, which all nodes must mount. A job of this name that waits
# or runs already is left alone; after one that was killed, stopped or ran out of time the same
# command goes on from the last checkpoint. Partition, account and time limit are sbatch's own
# variables: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT.
USAGE="[--dry-run] NAME NODES GPUS_PER_NODE -- ARGUMENTS OF jaxssl.main"
# shellcheck source=tpu_scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dry=''
[[ ${1-} == --dry-run ]] && { dry=1; shift; }
[[ $# -ge 5 && $1 != -* && $2 =~ ^[1-9][0-9]*$ && $3 =~ ^[1-9][0-9]*$ && $4 == -- ]] || usage
name=$(quote "$1") shape="--nodes=$2 --ntasks-per-node=$3 --gpus-per-node=$3"
already=$(quote "$1: is queued or runs already")
shift 4

perform "$dry" "jobs=\$(squeue --me --noheader --name=$name)
if [[ \$jobs ]]; then
  echo $already
else
  sbatch --job-name=$name $shape tpu_scripts/slurm.sbatch$(words "$@")
fi"
