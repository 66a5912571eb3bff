#!/usr/bin/env bash
# Makes a Cloud TPU VM (a pod where the type has several hosts), or asks for one in the queue.
#
#   tpu_scripts/create.sh [--dry-run] [--queued] [--spot] NAME ZONE TYPE VERSION
#   tpu_scripts/create.sh --queued --spot my-pod us-east5-b v6e-256 v2-alpha-tpuv6e
#
# It needs gcloud, logged in, with a project that has quota. The TPU costs money from the moment it
# is there until delete.sh has run, whether anything runs on it or not. --spot is cheaper, and may
# be taken away at any time: resume.sh goes on. --queued returns at once: status.sh says how far it
# is. A name that exists already is left as it is.
USAGE="[--dry-run] [--queued] [--spot] NAME ZONE TYPE VERSION"
# shellcheck source=tpu_scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dry='' queued='' spot=''
while [[ ${1-} == --* ]]; do
  case $1 in
    --dry-run) dry=1 ;;
    --queued) queued=1 ;;
    --spot) spot=' --spot' ;;
    *) usage ;;
  esac
  shift
done
[[ $# -eq 4 ]] || usage
name=$(quote "$1")
where="--zone=$(quote "$2") --accelerator-type=$(quote "$3")"
version=$(quote "$4")
if [[ $queued ]]; then
  kind="queued-resources"
  flags="--node-id=$name $where --runtime-version=$version$spot"
else
  kind=tpu-vm
  flags="$where --version=$version$spot"
fi

perform "$dry" "$(list "$kind" "$2")
if $(listed "$kind" "$1"); then
  echo $(quote "$1: exists already")
else
  gcloud compute tpus $kind create $name $flags
fi"
