#!/usr/bin/env bash
# Says how a Cloud TPU VM is, and shows the last lines of the run on its workers.
#
#   tpu_scripts/status.sh [--dry-run] NAME ZONE
#   tpu_scripts/status.sh my-pod us-east5-b
#
# It changes nothing and costs nothing.
USAGE="[--dry-run] NAME ZONE"
# shellcheck source=tpu_scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dry=''
[[ ${1-} == --dry-run ]] && { dry=1; shift; }
[[ $# -eq 2 && $1 != -* ]] || usage
name=$(quote "$1") zone="--zone=$(quote "$2")"

remote="flock -n jaxssl.lock echo \"\$(hostname): no run under way\""
remote+=" || echo \"\$(hostname): a run is under way\""
remote+="; test ! -e jaxssl.log || tail -n 3 jaxssl.log"

perform "$dry" "$(list queued-resources "$2")
$(list tpu-vm "$2")
if $(listed queued-resources "$1"); then
  printf 'request: '
  gcloud compute tpus queued-resources describe $name $zone --format='value(state.state)'
fi
if $(listed tpu-vm "$1"); then
  state=\$(gcloud compute tpus tpu-vm describe $name $zone --format='value(state)')
  echo \"TPU VM: \$state\"
  if [[ \$state == READY ]]; then
    $(on_workers "$1" "$2" "$remote")
  fi
else
  echo 'TPU VM: is not there'
fi"
