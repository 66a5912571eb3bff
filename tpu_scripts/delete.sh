#!/usr/bin/env bash
# Deletes a Cloud TPU VM, and the request in the queue that it came from, if there is one.
#
#   tpu_scripts/delete.sh [--dry-run] NAME ZONE
#   tpu_scripts/delete.sh my-pod us-east5-b
#
# The TPU costs nothing any more. What runs on it ends, and its local disks are gone: keep workdirs
# on storage of their own. What is gone already is left at that.
USAGE="[--dry-run] NAME ZONE"
# shellcheck source=tpu_scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dry=''
[[ ${1-} == --dry-run ]] && { dry=1; shift; }
[[ $# -eq 2 && $1 != -* ]] || usage
name=$(quote "$1") zone="--zone=$(quote "$2")"

# --force: the request together with its TPU VM.
perform "$dry" "$(list queued-resources "$2")
$(list tpu-vm "$2")
if $(listed queued-resources "$1"); then
  gcloud compute tpus queued-resources delete $name $zone --force --quiet
elif $(listed tpu-vm "$1"); then
  gcloud compute tpus tpu-vm delete $name $zone --quiet
else
  echo $(quote "$1: is not there")
fi"
