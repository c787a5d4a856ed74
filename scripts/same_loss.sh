#!/usr/bin/env bash
# Shows that a change leaves the numbers alone: trains the demo for 20 deterministic steps on the CPU,
# once at BASE and once in this working tree, and compares the two metrics.jsonl byte for byte.
# Both use the packages of .venv. Run: scripts/same_loss.sh BASE
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

train() { # SOURCE RUN_DIR
  echo "same-loss: 20 steps in $1" >&2
  # PYTHONPATH comes before the editable install of .venv, so each tree trains with its own code.
  if ! (cd "$1" && CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=1 PYTHONPATH=$1 \
    "$root/.venv/bin/python" -m vqtrain train experiment=demo trainer.max_steps=20 \
    trainer.log_every=1 trainer.accelerator=cpu trainer.deterministic=true run_dir="$2") \
    >"$2.txt" 2>&1; then
    cat "$2.txt" >&2
    echo "same-loss: the training in $1 failed" >&2
    exit 1
  fi
}
train "$work/base" "$work/run-base"
train "$root" "$work/run-here"

if ! cmp "$work/run-base/metrics.jsonl" "$work/run-here/metrics.jsonl"; then
  diff "$work/run-base/metrics.jsonl" "$work/run-here/metrics.jsonl" | head -n 4 || true
  echo "same-loss: the numbers differ from those at $1 ($base)" >&2
  exit 1
fi
echo "same-loss: $(wc -l <"$work/run-here/metrics.jsonl") lines of metrics equal those at $1 ($base)"
