#!/usr/bin/env bash
# Shows that a change leaves the numbers alone: trains three small runs for 20 deterministic steps on
# the CPU, once at BASE and once in this working tree, and compares their metrics.jsonl byte for byte.
# Both use the packages of .venv. Run: scripts/same_loss.sh BASE
# For a change that renames metrics, RENAME='s/old/new/' is applied to the lines of BASE first; keys are
# then sorted on both sides.
set -euo pipefail

if [ $# -ne 1 ]; then
  echo "usage: scripts/same_loss.sh BASE   (a commit, for example origin/main)" >&2
  exit 2
fi
root=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
base=$(git -C "$root" rev-parse --verify --quiet "$1^{commit}") || {
  echo "same-loss: '$1' is not a commit here; name one: make same-loss BASE=HEAD~1" >&2
  exit 2
}
work=$(mktemp -d)
trap 'git -C "$root" worktree remove --force "$work/base" || true; rm -rf "$work"' EXIT
git -C "$root" worktree add --quiet --detach "$work/base" "$base"

small="data.image_size=32 data.batch_size=4 data.num_workers=0"
declare -A runs=(
  [demo]="experiment=demo"
  [vqgan]="data.train=demo $small encoder=cnn decoder=cnn encoder.channels=32 decoder.channels=32
    encoder.multipliers=[1,2] decoder.multipliers=[1,2] encoder.attention_factors=[2]
    decoder.attention_factors=[2] encoder.num_blocks=1 decoder.num_blocks=1 codebook=vq
    codebook.size=64 discriminator=patchgan discriminator.channels=16 discriminator.num_layers=2
    loss.adversarial.start_step=5 loss.adversarial.ramp_steps=5"
  [residual]="data.train=demo $small codebook=residual codebook.size=64 codebook.num_codebooks=3"
)

train() { # NAME SOURCE RUN_DIR
  echo "same-loss: 20 steps of $1 in $2" >&2
  # PYTHONPATH comes before the editable install of .venv, so each tree trains with its own code.
  # shellcheck disable=SC2086  # words of a command line
  if ! (cd "$2" && CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=1 PYTHONPATH=$2 \
    "$root/.venv/bin/python" -m vqtrain train ${runs[$1]} trainer.max_steps=20 \
    trainer.log_every=1 trainer.accelerator=cpu trainer.deterministic=true run_dir="$3") \
    >"$3.txt" 2>&1; then
    cat "$3.txt" >&2
    echo "same-loss: the training in $2 failed" >&2
    exit 1
  fi
}

sorted() { # RENAME, from the standard input to the standard output
  sed "$1" | "$root/.venv/bin/python" -c '
import json, sys
for line in sys.stdin:
    print(json.dumps(json.loads(line), sort_keys=True))
'
}

differences() { # the metrics that differ between two files, and by how much at most
  "$root/.venv/bin/python" -c '
import json, sys
largest = {}
files = [[json.loads(line) for line in open(name)] for name in sys.argv[1:]]
for one, other in zip(*files):
    for key in one.keys() | other.keys():
        if one.get(key) != other.get(key):
            gap = abs((one.get(key) or 0) - (other.get(key) or 0))
            largest[key] = max(largest.get(key, 0), gap)
print("same-loss: lines:", *map(len, files))
for key, gap in sorted(largest.items()):
    print(f"same-loss:   {key} differs by up to {gap:.3g}")
' "$@"
}

differ=0
for name in demo vqgan residual; do
  train "$name" "$work/base" "$work/$name-base"
  train "$name" "$root" "$work/$name-here"
  sorted "${RENAME:-}" <"$work/$name-base/metrics.jsonl" >"$work/$name-base.jsonl"
  sorted "" <"$work/$name-here/metrics.jsonl" >"$work/$name-here.jsonl"
  if cmp "$work/$name-base.jsonl" "$work/$name-here.jsonl"; then
    lines=$(wc -l <"$work/$name-here.jsonl")
    echo "same-loss: $name: $lines lines of metrics equal those at $1 ($base)"
  else
    differences "$work/$name-base.jsonl" "$work/$name-here.jsonl"
    echo "same-loss: $name: the numbers differ from those at $1 ($base)" >&2
    differ=1
  fi
done
exit "$differ"
