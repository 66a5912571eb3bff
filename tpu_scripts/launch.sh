#!/usr/bin/env bash
# Runs jaxssl.main on every worker of a Cloud TPU VM, from the commit that is checked out here.
#
#   tpu_scripts/launch.sh [--dry-run] NAME ZONE -- --config=FILE:PRESET --workdir=DIR ...
#
# DIR must be on storage that all workers mount (checkpoints are written by all of them together).
# The same command again goes on from the last checkpoint. --dry-run prints the commands instead of
# running them. PYTHON names the workers' interpreter, 3.11 or newer (default: python3).
set -euo pipefail

usage() { echo "usage: ${0##*/} [--dry-run] NAME ZONE -- ARGUMENTS OF jaxssl.main" >&2; exit 2; }
dry=
[[ ${1-} == --dry-run ]] && { dry=1; shift; }
[[ $# -ge 4 && $1 != -* && $2 != -* && $3 == -- ]] || usage
name=$1 zone=$2
shift 3

quote() { # one word for a shell, quoted only where it must be
  if [[ $1 =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then printf %s "$1"; else
    printf "'%s'" "${1//\'/\'\\\'\'}"
  fi
}

arguments=
for word in "$@"; do arguments+=" $(quote "$word")"; done
where="--zone=$(quote "$zone") --worker=all"
vm="gcloud compute tpus tpu-vm"
remote="mkdir -p jaxssl && tar -xzf jaxssl.tar.gz -C jaxssl && cd jaxssl"
remote+=" && { test -x .venv/bin/python || ${PYTHON:-python3} -m venv .venv; }"
remote+=" && .venv/bin/pip install -q -e '.[tpu]' && .venv/bin/python -m jaxssl.main$arguments"

# What is printed is what is run: one text. The coordinator is the first worker.
commands="archive=\$(mktemp -d)/jaxssl.tar.gz
git archive --format=tar.gz --output=\"\$archive\" HEAD
$vm scp \"\$archive\" $(quote "$name"):jaxssl.tar.gz $where
address=\$($vm describe $(quote "$name") --zone=$(quote "$zone") --format='value(networkEndpoints[0].ipAddress)')
$vm ssh $(quote "$name") $where --command=\"export JAX_COORDINATOR_ADDRESS=\$address:8476; \"$(quote "$remote")"

if [[ $dry ]]; then
  printf '%s\n' "$commands"
else
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  bash -euo pipefail -c "$commands"
fi
