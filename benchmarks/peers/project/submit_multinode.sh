#!/bin/bash
# After examples/slurm/submit_multinode.sh of huggingface/accelerate (1.15): the same lines in the same order, for 2 nodes of 2 processes.
# Changed: the number of nodes, processes, cores; no --gres; --multi_gpu, which on nodes with GPUs is found by itself and without which
# a node with CPUs only starts one process that knows of no other; the training script and its arguments.

#SBATCH --job-name=multinode
#SBATCH -D .
#SBATCH --output=O-%x.%j
#SBATCH --error=E-%x.%j
#SBATCH --nodes=2                   # number of nodes
#SBATCH --ntasks-per-node=1         # number of MP tasks
#SBATCH --cpus-per-task=2           # number of cores per tasks
#SBATCH --time=00:10:00             # maximum execution time (HH:MM:SS)

######################
### Set environment ###
######################
source activateEnvironment.sh
export GPUS_PER_NODE=2
######################

######################
#### Set network #####
######################
head_node_ip=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)
######################

export LAUNCHER="accelerate launch \
    --multi_gpu \
    --num_processes $((SLURM_NNODES * GPUS_PER_NODE)) \
    --num_machines $SLURM_NNODES \
    --rdzv_backend c10d \
    --main_process_ip $head_node_ip \
    --main_process_port 29500 \
    "
export ACCELERATE_DIR="${ACCELERATE_DIR:-/accelerate}"
export SCRIPT="${ACCELERATE_DIR}/train_accelerate.py"
export SCRIPT_ARGS=" \
    ${ACCELERATE_DIR}/out/member-${SLURM_ARRAY_TASK_ID:-0} \
    "

# This step is necessary because accelerate launch does not handle multiline arguments properly
export CMD="$LAUNCHER $SCRIPT $SCRIPT_ARGS"
srun $CMD
