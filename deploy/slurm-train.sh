#!/bin/bash
# A training on several nodes in one Slurm job: torchrun on each of them, a process for each GPU.
#
#   DATA=s3://bucket/labels OUT=s3://bucket/round1 INIT=baseline_online.pth sbatch --nodes=4 deploy/slurm-train.sh
#
# The batch of the recipe is that of all processes together, so their number must divide it (32). A
# job that ends before the training, or is requeued, goes on from the last checkpoint.
#
# FLAGS holds any others, such as FLAGS="--precision bf16 --s3-endpoint https://storage.example.org:9000".

#SBATCH --job-name=tapdistill-train
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=72
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=tapdistill-train-%j.log

set -euo pipefail
: "${DATA:?set DATA to the labels}" "${OUT:?set OUT to where the student goes}" "${INIT:?set INIT to the weights that it starts from}"

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}
port=$((20000 + SLURM_JOB_ID % 20000))

# since Slurm 22.05, a step gets one CPU unless it asks for those of its job; and where one node fails,
# the others would wait for it for an hour
# shellcheck disable=SC2086  # further flags are several words
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \
    torchrun --nnodes="$SLURM_NNODES" --nproc-per-node="${GPUS:-$SLURM_GPUS_ON_NODE}" \
    --rdzv-backend=c10d --rdzv-endpoint="$head:$port" --rdzv-id="$SLURM_JOB_ID" \
    -m pipelines.cli train --recipe "${RECIPE:-cotracker3_15k_online}" \
    --data "$DATA" --init "$INIT" --out "$OUT" ${FLAGS:-}
