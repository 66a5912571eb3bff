#!/usr/bin/env bash
# Rehearses a pod on one machine: N processes with M CPU devices each are one run of jaxssl.main.
#
#   tpu_scripts/local_pod.sh 2 4 -- --config=experiments/lejepa.py --workdir=runs/pod
#
# Each line of output starts with the number of its process. A process that fails takes the others
# with it; SIGINT and SIGTERM go to all of them, which save a checkpoint and end. PYTHON names the
# interpreter (default: python).
set -euo pipefail

usage() { echo "usage: ${0##*/} PROCESSES DEVICES_EACH -- ARGUMENTS OF jaxssl.main" >&2; exit 2; }
[[ $# -ge 4 && $1 =~ ^[1-9][0-9]*$ && $2 =~ ^[1-9][0-9]*$ && $3 == -- ]] || usage
processes=$1 devices=$2
shift 3
python=${PYTHON:-python}

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=localhost:$port JAX_NUM_PROCESSES=$processes
export JAX_NUM_CPU_DEVICES=$devices JAX_PLATFORMS=cpu

set -m # each process leads a group of its own: signals reach it once, and its children with it
pipes=$(mktemp -d)
running=() printers=()
finish() {
  for pid in ${running[@]+"${running[@]}"}; do kill -KILL -- "-$pid" 2>/dev/null || true; done
  wait ${printers[@]+"${printers[@]}"} 2>/dev/null || true # the last lines are still on their way
  rm -rf "$pipes"
}
trap finish EXIT
trap 'kill -TERM ${running[@]+"${running[@]}"} 2>/dev/null || true' INT TERM

for ((i = 0; i < processes; i++)); do
  mkfifo "$pipes/$i"
  sed -u "s/^/[$i] /" <"$pipes/$i" &
  printers+=($!)
  exec 3>"$pipes/$i" # opened here, or the printer would wait for a process killed before it wrote
  JAX_PROCESS_ID=$i "$python" -m jaxssl.main "$@" >&3 2>&1 3>&- </dev/null &
  running+=($!)
  exec 3>&-
done

while ((${#running[@]})); do
  left=()
  for pid in "${running[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      left+=("$pid")
    else
      wait "$pid" || exit $? # `finish` ends the others
    fi
  done
  running=(${left[@]+"${left[@]}"})
  if ((${#running[@]})); then sleep 0.1; fi
done
