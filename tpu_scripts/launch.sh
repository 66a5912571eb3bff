#!/usr/bin/env bash
# Starts jaxssl.main on every worker of a Cloud TPU VM that setup.sh has prepared: one run.
#
#   tpu_scripts/launch.sh [--dry-run] NAME ZONE -- --config=FILE:PRESET --workdir=DIR ...
#   tpu_scripts/launch.sh my-pod us-east5-b -- --config=experiments/lejepa.py:imagenet1k_vit_s16 --workdir=/mnt/runs/s16
#
# The run goes on when this returns, and when the connection breaks; each worker writes
# ~/jaxssl.log, which status.sh shows. DIR must be on storage that all workers mount (checkpoints
# are written by all of them together). The same command again goes on from the last checkpoint, and
# starts nothing on a worker where the run is under way.
USAGE="[--dry-run] NAME ZONE -- ARGUMENTS OF jaxssl.main"
# shellcheck source=tpu_scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dry=''
[[ ${1-} == --dry-run ]] && { dry=1; shift; }
[[ $# -ge 4 && $1 != -* && $2 != -* && $3 == -- ]] || usage
name=$1 zone=$2
shift 3

# JAX asks the TPU itself who the workers are: --cluster=tpu. The run holds the lock while it lives.
run=".venv/bin/python -m jaxssl.main --cluster=tpu$(words "$@")"
remote="{ test -x jaxssl/.venv/bin/python || { echo 'not set up: tpu_scripts/setup.sh'; exit 1; }; }"
remote+=" && { flock -n jaxssl.lock true || { echo 'under way already'; exit 0; }; }"
remote+=" && cd jaxssl && { nohup flock -n ../jaxssl.lock $run >>../jaxssl.log 2>&1 </dev/null & }"
remote+=" && echo started"

perform "$dry" "$(on_workers "$name" "$zone" "$remote")"
