# shellcheck shell=bash
# The site's own lines, read by a batch job before anything else: cluster.prelude=slurm/site.sh copies them into the run at submit.
# Everything here is an example; a job that needs none of it leaves cluster.prelude alone.

# module load cuda/12.8 nccl
# export NCCL_IB_HCA=mlx5_0,mlx5_1   # or cluster.env.NCCL_IB_HCA=…
