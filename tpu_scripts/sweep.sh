#!/usr/bin/env bash
# Launches a run for each line of a list, one after the other, each with a workdir of its own.
#
#   tpu_scripts/sweep.sh [--dry-run] LIST FOLDER -- COMMAND ...
#   tpu_scripts/sweep.sh rates.txt runs/rates -- python -m jaxssl.main --config=experiments/lejepa.py
#
# A line of LIST is a name and overrides, quoted as for a shell; empty lines and # lines are skipped:
#
#   slow --config.optimizer.learning_rate=1e-4
#   ramp "--config.optimizer.learning_rate=('linear', 0.0, 1e-3)"
#
# It runs COMMAND ... --workdir=FOLDER/NAME OVERRIDES from the root of the repository, and leaves
# these folders behind. COMMAND may be launch.sh, slurm.sh or gke.sh with all before their overrides.
# Run again, it passes over what has finished and goes on with the rest. A run that fails does not
# keep the next from starting; the exit code is then 1.
USAGE="[--dry-run] LIST FOLDER -- COMMAND ..."
# shellcheck source=tpu_scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dry=''
[[ ${1-} == --dry-run ]] && { dry=1; shift; }
[[ $# -ge 4 && $1 != -* && $2 != -* && $3 == -- && -r $1 ]] || usage
list=$1 folder=$2
shift 3
command=$(words "$@")

commands='failed=' names=' '
while IFS= read -r line || [[ $line ]]; do
  [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
  overrides=()
  # xargs takes quotes apart as a shell does, and expands nothing.
  while IFS= read -r word; do overrides+=("$word"); done < <(printf '%s' "$line" | xargs printf '%s\n')
  name=${overrides[0]-}
  if [[ ! $name =~ ^[A-Za-z0-9_.-]+$ || $names == *" $name "* ]]; then
    echo "$list: $(quote "$line"): expected a name of its own, then overrides" >&2
    exit 2
  fi
  names+="$name "
  workdir=$(quote "$folder/$name")
  commands+="
if grep -qs '\"status\": \"finished\"' $workdir/summary.json; then
  echo $(quote "$name: finished already")
else
 $command --workdir=$workdir$(words "${overrides[@]:1}") </dev/null || failed+=' $name'
fi"
done <"$list"
commands+="
if [[ \$failed ]]; then
  echo \"failed:\$failed\" >&2
  exit 1
fi"

perform "$dry" "$commands"
