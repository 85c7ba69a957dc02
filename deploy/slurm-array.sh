#!/bin/bash
# A labelling job as a Slurm array, without a Ray cluster: each task does every N-th unit on one
# node.
#
#   VIDEOS=s3://bucket/videos OUT=s3://bucket/labels TEACHERS="cotracker3-offline tapir" sbatch --array=0-15 deploy/slurm-array.sh
#
# A task that is killed or requeued goes on where it stopped; `tapdistill status $OUT` tells how all
# of them stand.
#
# FLAGS holds any others, such as FLAGS="--s3-endpoint https://storage.example.org:9000".

#SBATCH --job-name=tapdistill
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=tapdistill-%A-%a.log

set -euo pipefail
: "${VIDEOS:?set VIDEOS to what is to be labelled}" "${OUT:?set OUT to the data set}"

# shellcheck disable=SC2086  # several teachers or flags are several words
exec tapdistill label "$VIDEOS" --out "$OUT" --teachers ${TEACHERS:-lk flow match} \
    --shards "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" ${FLAGS:-}
