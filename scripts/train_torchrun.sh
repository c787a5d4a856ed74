#!/bin/bash
# Trains on one machine or several with torchrun; one call on each machine:
#   NODES=2 GPUS=8 MASTER=first-machine:29500 scripts/train_torchrun.sh experiment=vqgan_f16_1024 data.train=/data/train
# On one machine `vqtrain train trainer.devices=8` does the same without torchrun.
set -euo pipefail

exec torchrun --nnodes="${NODES:-1}" --nproc-per-node="${GPUS:-8}" \
    --rdzv-backend=c10d --rdzv-endpoint="${MASTER:-localhost:29500}" \
    -m vqtrain train "trainer.num_nodes=${NODES:-1}" "trainer.devices=${GPUS:-8}" "$@"
