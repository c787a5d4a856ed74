#!/bin/bash
# Trains on several machines under SLURM, and goes on by itself when the time of the job is over.
# Adapt the lines below to your cluster, then:
#   sbatch scripts/train_slurm.sh experiment=vqgan_f16_1024 data.train=/data/imagenet-train data.val=/data/imagenet-val
#SBATCH --job-name=vqtrain
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

# One task a GPU. The run directory has the job's number, which a requeued job keeps.
srun --kill-on-bad-exit=1 vqtrain train \
    "trainer.devices=$SLURM_NTASKS_PER_NODE" "trainer.num_nodes=$SLURM_NNODES" \
    "run_dir=${RUNS:-runs}/slurm-$SLURM_JOB_ID" resume=auto "$@"
code=$?

# 143: SLURM's signal came, and the run has ended with a checkpoint.
if [ "$code" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
