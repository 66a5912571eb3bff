#!/usr/bin/env bash
# Puts the commit that is checked out here on every worker of a Cloud TPU VM, and installs it.
#
#   tpu_scripts/setup.sh [--dry-run] NAME ZONE
#   tpu_scripts/setup.sh my-pod us-east5-b
#
# It leaves ~/jaxssl, with a virtual environment inside, on each worker; again, it brings them up to
# date, but for a worker where a run is under way. PYTHON names the workers' interpreter, 3.11 or
# newer (default: python3).
USAGE="[--dry-run] NAME ZONE"
# shellcheck source=tpu_scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dry=''
[[ ${1-} == --dry-run ]] && { dry=1; shift; }
[[ $# -eq 2 && $1 != -* ]] || usage

remote="{ flock -n jaxssl.lock true || { echo 'a run is under way: left as it is'; exit 0; }; }"
remote+=" && mkdir -p jaxssl && tar -xzf jaxssl.tar.gz -C jaxssl && cd jaxssl"
remote+=" && { test -x .venv/bin/python || $(quote "${PYTHON:-python3}") -m venv .venv; }"
remote+=" && .venv/bin/pip install -q -e '.[tpu]'"

perform "$dry" "archive=\$(mktemp -d)/jaxssl.tar.gz
git archive --format=tar.gz --output=\"\$archive\" HEAD
gcloud compute tpus tpu-vm scp \"\$archive\" $(quote "$1"):jaxssl.tar.gz --zone=$(quote "$2") --worker=all
rm -r \"\${archive%/*}\"
$(on_workers "$1" "$2" "$remote")"
