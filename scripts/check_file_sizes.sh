#!/usr/bin/env bash
# Refuses files over 200 kB, so that pictures and weights stay out of the history.
# Run: scripts/check_file_sizes.sh FILE...
set -euo pipefail

# Pages carry this library: one file as its makers publish it, without a build of ours.
library=vqtrain/reports/chart.umd.min.js

large=$(find "$@" -type f -size +200000c | grep -vFx -e "$library" -e "./$library" || true)
if [ -n "$large" ]; then
  printf 'over 200 kB: %s\n' "$large" >&2
  exit 1
fi
