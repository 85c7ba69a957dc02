#!/bin/bash
# A labelling job on a Ray cluster inside one Slurm job: a head on the first node, a raylet on each
# of the others.
#
#   VIDEOS=s3://bucket/videos OUT=s3://bucket/labels sbatch --nodes=8 deploy/slurm-ray.sh
#
# The cluster ends with the job. Slurm ends the processes of its own job and no others, so other
# people's Ray is not touched.
#
# FLAGS holds any others, such as FLAGS="--s3-endpoint https://storage.example.org:9000".

#SBATCH --job-name=tapdistill
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --output=tapdistill-%j.log

set -euo pipefail
: "${VIDEOS:?set VIDEOS to what is to be labelled}" "${OUT:?set OUT to the data set}"

RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | base64 | tr -d '/+=')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0
port=$((20000 + SLURM_JOB_ID % 20000))
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
# since Slurm 22.05, a step gets one CPU unless it asks for those of its job
step=(srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --overlap)

"${step[@]}" --nodelist="$head" \
    ray start --head --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false --block &
for node in "${nodes[@]:1}"; do
    "${step[@]}" --nodelist="$node" \
        ray start --address="$head:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
done
sleep 30 # until the head answers; nodes that come later are used all the same

# shellcheck disable=SC2086  # several teachers or flags are several words
"${step[@]}" --nodelist="$head" \
    tapdistill label "$VIDEOS" --out "$OUT" --teachers ${TEACHERS:-lk flow match} --ray-address "$head:$port" \
    ${FLAGS:-}
