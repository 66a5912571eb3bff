#!/usr/bin/env bash
# Brings a run back after its Cloud TPU VM was taken away: makes the VM again, sets it up, launches.
#
#   tpu_scripts/resume.sh [--dry-run] [--queued] [--spot] NAME ZONE TYPE VERSION -- ARGUMENTS OF jaxssl.main
#   tpu_scripts/resume.sh --queued --spot my-pod us-east5-b v6e-256 v2-alpha-tpuv6e -- --config=experiments/lejepa.py:imagenet1k_vit_s16 --workdir=/mnt/runs/s16
#
# The VM and the run are those of create.sh, setup.sh and launch.sh, and cost and leave behind the
# same. Where the run is under way, nothing happens; so it can be called every few minutes. A VM
# that is not ready yet is for the next call.
USAGE="[--dry-run] [--queued] [--spot] NAME ZONE TYPE VERSION -- ARGUMENTS OF jaxssl.main"
# shellcheck source=tpu_scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dry='' how=''
while [[ ${1-} == --* ]]; do
  case $1 in
    --dry-run) dry=1 ;;
    --queued | --spot) how+=" $1" ;;
    *) usage ;;
  esac
  shift
done
[[ $# -ge 6 && $5 == -- ]] || usage
vm=$(words "$1" "$2") made=$(words "$1" "$2" "$3" "$4")
where="$(quote "$1") --zone=$(quote "$2")"
vms=$(list tpu-vm "$2") requests=$(list queued-resources "$2")
have=$(listed tpu-vm "$1") asked=$(listed queued-resources "$1")
shift 5

perform "$dry" "$requests
$vms
if $have; then
  state=\$(gcloud compute tpus tpu-vm describe $where --format='value(state)')
  case \$state in PREEMPTED | TERMINATED | STOPPED) tpu_scripts/delete.sh$vm ;; esac
elif $asked; then
  state=\$(gcloud compute tpus queued-resources describe $where --format='value(state.state)')
  case \$state in SUSPENDED | FAILED) tpu_scripts/delete.sh$vm ;; esac
fi
tpu_scripts/create.sh$how$made
state=absent
$vms
if $have; then
  state=\$(gcloud compute tpus tpu-vm describe $where --format='value(state)')
fi
if [[ \$state == READY ]]; then
  tpu_scripts/setup.sh$vm && tpu_scripts/launch.sh$vm --$(words "$@")
else
  echo \"TPU VM: \$state; not ready yet\"
fi"
