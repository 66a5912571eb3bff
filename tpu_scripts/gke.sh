#!/usr/bin/env bash
# Runs jaxssl.main on TPU slices of a GKE cluster: fills gke_jobset.yaml, and has kubectl apply it.
#
#   tpu_scripts/gke.sh [--dry-run] NAME ACCELERATOR TOPOLOGY SLICES HOSTS CHIPS IMAGE CLAIM -- ARGUMENTS OF jaxssl.main
#   tpu_scripts/gke.sh s16 tpu-v5-lite-podslice 4x4 1 4 4 REGISTRY/jaxssl:1 runs -- --config=experiments/lejepa.py:imagenet1k_vit_s16 --workdir=/mnt/runs/s16
#
# gke_jobset.yaml says what each word is. It needs kubectl, connected to a cluster with JobSet and a
# TPU node pool of that shape, whose nodes cost money while they are there. It leaves the JobSet
# behind (kubectl delete jobset NAME; kubectl logs -l jobset.sigs.k8s.io/jobset-name=NAME). Applied
# again, unchanged, it does nothing; after that deletion it goes on from the last checkpoint.
USAGE="[--dry-run] NAME ACCELERATOR TOPOLOGY SLICES HOSTS CHIPS IMAGE CLAIM -- ARGUMENTS OF jaxssl.main"
# shellcheck source=tpu_scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

dry=''
[[ ${1-} == --dry-run ]] && { dry=1; shift; }
[[ $# -ge 10 && $1 != -* && $9 == -- ]] || usage
for number in "$4" "$5" "$6"; do [[ $number =~ ^[1-9][0-9]*$ ]] || usage; done

json() { # words as a JSON list; a line break has no place in one
  local word list=
  for word in "$@"; do
    [[ $word != *[[:cntrl:]]* ]] || usage
    word=${word//\\/\\\\}
    list+="${list:+, }\"${word//\"/\\\"}\""
  done
  printf '[%s]' "$list"
}

manifest=$(grep -v '^#' "$ROOT/tpu_scripts/gke_jobset.yaml")
for name in NAME ACCELERATOR TOPOLOGY SLICES HOSTS CHIPS IMAGE CLAIM; do
  manifest=${manifest//"@$name@"/"$1"}
  shift
done
shift
manifest=${manifest//"@ARGUMENTS@"/"$(json "$@")"}

perform "$dry" "kubectl apply -f - <<'END OF MANIFEST'
$manifest
END OF MANIFEST"
