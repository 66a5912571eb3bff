# Sourced by the scripts beside it. Each sets USAGE before, and has its one text of commands
# `perform`ed: what --dry-run prints is what is run otherwise.
# shellcheck shell=bash
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  echo "usage: ${0##*/} ${USAGE:?}" >&2
  exit 2
}

quote() { # one word for a shell, quoted only where it must be
  if [[ $1 =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then printf %s "$1"; else
    printf "'%s'" "${1//\'/\'\\\'\'}"
  fi
}

words() { # each word after a space, for a shell
  local word
  for word in "$@"; do printf ' %s' "$(quote "$word")"; done
}

perform() { # DRY COMMANDS: from the root of the repository
  if [[ $1 ]]; then printf '%s\n' "$2"; else
    cd "$ROOT"
    bash -euo pipefail -c "$2"
  fi
}

list() { # KIND ZONE: reads into $vms or $requests the names that are there
  # A list, not `describe`: that fails alike for what is not there and for what may not be seen.
  # And in an assignment, where a failure ends the script, as it does not in a condition.
  local variable=vms
  [[ $1 == tpu-vm ]] || variable=requests
  printf '%s' "$variable=\$(gcloud compute tpus $1 list --zone=$(quote "$2")"
  printf '%s' " --format='value(name.basename())')"
}

listed() { # KIND NAME: a condition, after that
  local variable=vms
  [[ $1 == tpu-vm ]] || variable=requests
  printf '%s' "grep -qxF -e $(quote "$2") <<<\"\$$variable\""
}

on_workers() { # NAME ZONE COMMAND: over SSH, on all of them
  printf '%s' "gcloud compute tpus tpu-vm ssh $(quote "$1") --zone=$(quote "$2") --worker=all"
  printf '%s' " --command=$(quote "$3")"
}
