#!/bin/bash
#SBATCH --job-name=cong
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=72
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
#SBATCH --open-mode=append
#
# A Ray cluster on the nodes of a job, one `cong run` on it, and nothing left behind. From an environment that has cong:
#
#     sbatch --nodes=2 cluster/slurm.sh experiments/quickstart.py --scale paper --profile h100x8 --store /shared/runs
#
# The job ends with the exit code of `cong run`. Before its time is up it stops and goes back to the queue, as it does when
# a node is lost: running again goes on where it stopped.
set -euo pipefail

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
# Steps do not inherit this from the job.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

readonly wait_seconds=300 temporary="/tmp/ray-$SLURM_JOB_ID"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# This script runs on the first node, whose address is the one by which Ray knows it.
address="$(python -c 'import ray.util; print(ray.util.get_node_ip_address())'):$((20000 + SLURM_JOB_ID % 10000))"
steps=()
requeue=no

# shellcheck disable=SC2329  # traps call these two
finish() {
    local code=$?
    trap - EXIT USR1 TERM INT
    for pid in "${steps[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    wait
    srun --overlap --nodes="${#nodes[@]}" --ntasks="${#nodes[@]}" rm -rf "$temporary" || true
    if [[ $requeue == yes && $code != 0 ]]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}

# shellcheck disable=SC2329
interrupt() {
    requeue=$1
    # `cong run` takes an interrupt as a wish to stop: what is finished is kept.
    [[ -z ${run:-} ]] || kill -INT "$run" 2>/dev/null || true
}

trap finish EXIT
trap 'interrupt yes' USR1
trap 'interrupt no' TERM INT

srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
    ray start --head --node-ip-address="${address%:*}" --port="${address#*:}" --temp-dir="$temporary" \
    --num-cpus="$SRUN_CPUS_PER_TASK" --include-dashboard=false --block &
steps+=($!)
if ((${#nodes[@]} > 1)); then
    others=$((${#nodes[@]} - 1))
    srun --overlap --nodes="$others" --ntasks="$others" --exclude="${nodes[0]}" \
        ray start --address="$address" --num-cpus="$SRUN_CPUS_PER_TASK" --block &
    steps+=($!)
fi

# `cong run` compares what stages need with the nodes that are up: all must be.
python - "$address" "${#nodes[@]}" "$wait_seconds" <<'PYTHON' &
import logging
import sys
import time

import ray

address, wanted, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
deadline, found, reason = time.monotonic() + seconds, 0, ""
while True:
    try:
        if not ray.is_initialized():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        found = sum(node["Alive"] for node in ray.nodes())
    except Exception as error:
        reason = f" ({type(error).__name__}: {error})"
    if found >= wanted:
        break
    if time.monotonic() > deadline:
        sys.exit(f"error: {found} of {wanted} nodes joined Ray within {seconds:g} s{reason}")
    time.sleep(1)
PYTHON
wait "$!"

# Under job control a process in the background can be interrupted.
set -m
cong run "$@" --address "$address" &
run=$!
set +m
code=0
wait "$run" || code=$?
# A signal ends `wait` before the run has ended.
while kill -0 "$run" 2>/dev/null; do
    code=0
    wait "$run" || code=$?
done
exit "$code"
