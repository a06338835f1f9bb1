#!/bin/bash
# sbatch configs/slurm/train.sh
#
# A training on two nodes with two GPUs each: Ray starts on all nodes, the command runs on the
# first, and Ray ends with it. Submit from the project's folder after `make setup`; both lie on a
# file system that every node mounts. Settings, and a config, follow the script's name:
#   sbatch configs/slurm/train.sh configs/odia.yaml train.max_steps=1000
# A job that Slurm stops and queues again (--requeue), or that you submit again after its time
# limit, resumes the run. Never run under Slurm by us.
#SBATCH --job-name=lipi
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=2
#SBATCH --cpus-per-task=16
#SBATCH --mem=96G
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=lipi-%j.log
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PATH=$PWD/.venv/bin:$PATH

# Yours: a folder that every node mounts; the run is refused where one of them does not share it.
export LIPI_STORAGE=${LIPI_STORAGE:-/shared/lipi}
export LIPI_ACCELERATOR=gpu
# Each node reads the token from the home folder, which Slurm's nodes share.
export RAY_AUTH_MODE=token
[ -s ~/.ray/auth_token ] || ray get-auth-token --generate > /dev/null

gpus_per_node=${SLURM_GPUS_PER_NODE##*:}  # 2, also from a100:2
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# the first node's address for the others; its name may stand for 127.0.1.1 on the node itself
addresses=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --all-ip-addresses)
ip=${addresses%% *}
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# RAY_ADDRESS has the run join this cluster, where it would start a Ray of its own
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
  ray symmetric-run --address "$ip:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$gpus_per_node" \
  -- env RAY_ADDRESS="$ip:6379" \
  python ray_jobs/train_odia.py "$@"
