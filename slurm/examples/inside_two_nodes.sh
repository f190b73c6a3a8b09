#!/bin/bash
# cifar/20261121-081500-123: 2 nodes x 8 processes on cuda. Rendered by launcher 0.1.0; what runs is this file.
set -euo pipefail
umask 077

# torchrun ends at a word here that it does not know, and many programs read the same variable.
LOGLEVEL=$(printf %s "${LOGLEVEL:-}" | tr "[:lower:]" "[:upper:]")
case "$LOGLEVEL" in DEBUG | INFO | WARNING | ERROR | CRITICAL) export LOGLEVEL ;; *) unset LOGLEVEL ;; esac
# What an outer job, torchrun or `accelerate config` left in the environment would change this run in silence.
unset RANK LOCAL_RANK GROUP_RANK ROLE_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_WORLD_SIZE ROLE_WORLD_SIZE
unset MASTER_ADDR MASTER_PORT NODE_RANK
for name in "${!ACCELERATE_@}" "${!FSDP_@}" "${!PARALLELISM_CONFIG_@}" "${!TORCHELASTIC_@}" "${!PET_@}"; do
    unset "$name"
done

# What salloc was asked for is not what this step is: SLURM_NTASKS, SLURM_CPUS_PER_TASK and a hundred others are options of srun.
step_here=${SLURM_STEP_ID:-}
for name in "${!SLURM_@}" "${!SRUN_@}" "${!SALLOC_@}"; do
    case "$name" in
    SLURM_CONF | SLURM_JWT | SLURM_JOB_ID | SLURM_JOB_END_TIME | SLURM_WORKING_CLUSTER) ;;
    *) unset "$name" ;;
    esac
done
# A run's own, where this shell is in its job.
unset LAUNCHER_JOB LAUNCHER_LIMIT LAUNCHER_HEAD LAUNCHER_MEETING LAUNCHER_DEADLINE LAUNCHER_RUN_DIR

export NCCL_IB_HCA=mlx5_0
run=/home/ada/project/runs/cifar/20261121-081500-123
code=/home/ada/launcher
python=/home/ada/project/.venv/bin/python
own=/home/ada/project/.venv/bin/python # of this machine, in no container
count=2

export PYTHONPATH="$code${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1 # for what Python starts by itself, from 3.11 on: a queue.py where it stands is not its own
export OMP_NUM_THREADS=12
# torchrun gives its workers this long when one of them has failed; the others hang in a collective by then.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=5

cd "$code" # where -m looks first
# One directory per attempt. mkdir is atomic: two starts never share one.
attempt=0
while ! mkdir "$run/attempts/$(printf %03d "$attempt")" 2>/dev/null; do
    [ -d "$run/attempts/$(printf %03d "$attempt")" ] || { echo "$run/attempts cannot be written" >&2; exit 3; }
    attempt=$((attempt + 1))
done
LAUNCHER_ATTEMPT=$(printf %03d "$attempt")
export LAUNCHER_ATTEMPT
ln -sfn "$LAUNCHER_ATTEMPT" "$run/attempts/latest" 2>/dev/null || true # for people; not every file system has links
here="$run/attempts/$LAUNCHER_ATTEMPT"
echo "$$" >"$here/agent.pid"
exec >>"$run/job.log" 2>&1

# Both become srun, which takes TERM for the order to end what it has started, and is sent it where this shell is killed.
step() {
    exec "$own" -m launcher.node.deathsig "$$" \
    srun \
        ${share:+"$share"} --jobid="$SLURM_JOB_ID" \
        --immediate=30 --input=none --mem=0 \
        --cpus-per-task=96 \
        --gpus-per-node=8 \
        ${nodes:+"--nodelist=$nodes"} \
        --nodes=2 \
        --ntasks-per-node=1 --export=ALL --kill-on-bad-exit=1 \
        "$python" -m launcher.node "$run" \
        "$python" -m launcher.train.torchrun \
        --nnodes=2 \
        --nproc-per-node=8 \
        --max-restarts=0 \
        --rdzv-backend=sealed --rdzv-endpoint="$head:$port" --rdzv-id="$SLURM_JOB_ID.$LAUNCHER_ATTEMPT" \
        -m launcher.train.worker \
        "$run"
}
look() { # TEXT: of bash, on every node
    exec "$own" -m launcher.node.deathsig "$$" \
    srun \
        ${share:+"$share"} --jobid="$SLURM_JOB_ID" \
        --immediate=30 --input=none --mem=0 \
        --cpus-per-task=96 \
        --gpus-per-node=8 \
        --nodes=2 \
        --ntasks-per-node=1 --export=ALL \
        bash -c "$1" launcher "$((SLURM_JOB_ID + $$))"
}

is_number() { [[ "$1" =~ ^[0-9]{1,15}$ ]]; }
say() { printf '%s launcher: %s\n' "$(date +%Y-%m-%dT%H:%M:%S)" "$*"; }
ask_job() { { timeout --kill-after=5 60 scontrol show job "$job" -o 2>/dev/null | head -c 65536; } || true; }
end_of_job() {
    local word
    word=$(ask_job | sed -n 's/.* EndTime=\([0-9T:-]*\) .*/\1/p' | head -n 1)
    { [ -n "$word" ] && date -d "$word" +%s 2>/dev/null; } || echo "${SLURM_JOB_END_TIME:-$(($(date +%s) + limit - SECONDS))}"
}
# shellcheck disable=SC2329 # the first node's shell calls it
find_head() {
    head=$(
        {
            if [ -n "${LAUNCHER_INTERFACE:-}" ]; then
                ip -4 -o address show dev "$LAUNCHER_INTERFACE" | awk '{ sub("/.*", "", $4); print $4 }'
            else
                for name in ${SLURMD_NODENAME:-} "$(hostname)"; do getent ahostsv4 "$name" | awk '{ print $1 }'; done
                hostname -I | tr ' ' '\n'
            fi
        } 2>/dev/null | awk '/^[0-9.]+$/ && !/^(127|0)\./ && !/^169\.254\./ { print; exit }' || true
    )
    [ -n "$head" ] || [ -z "${LAUNCHER_INTERFACE:-}" ] || end failed 4 "cluster.interface=$LAUNCHER_INTERFACE has no address on $(hostname)"
    [ -n "$head" ] || end failed 4 "no address of $(hostname) but loopback is known; name the interface between nodes: cluster.interface=…"
}
# shellcheck disable=SC2329 # the first node's shell calls it
find_port() {
    local try
    for try in {0..99}; do
        port=$((20000 + (SLURM_JOB_ID * 7 + try) % 12000)) # below what Linux gives to clients, 32768 and up
        # 0A is LISTEN. On whatever address it is: the meeting listens on all of them.
        grep -qs ":$(printf %04X "$port") [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6 || return 0
    done
    end failed 4 "a hundred ports of $head from $port down are taken"
}
make_key() {
    (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$here/meeting.key") || end failed 3 "$here/meeting.key cannot be written"
}

# ---- The life of one attempt in an allocation that is somebody's: launcher/clusters/slurm/inside.sh.

say "attempt $LAUNCHER_ATTEMPT: job.sh of ${SLURM_JOB_ID:-no allocation}, on $(hostname)"
refuse() { say "refused: $*" && exit 4; }
end() { refuse "${*:3}"; }
is_number "${SLURM_JOB_ID:-}" || refuse "this shell is in no allocation (SLURM_JOB_ID); start it in the one of salloc"
is_number "${SLURM_JOB_END_TIME:-}" || unset SLURM_JOB_END_TIME
job=$SLURM_JOB_ID
limit=31622400 # where nobody knows when it ends

# A step of ours takes no more than the run needs, so that another one has room beside it. Where this shell is itself a step, that one holds
# all there is; longer are the numbers of steps that hold nothing: batch and interactive. Before 20.11 steps share without being told to.
share=--exact
[[ ! "$step_here" =~ ^[0-9]{1,9}$ ]] || share=--overlap
[[ "$(srun --help 2>/dev/null || true)" == *"$share"* ]] || share=''

# Where they meet is found on the first of them, for this shell may be on none. By the number of this start, not of the allocation: two runs
# beside each other do not meet.
meet() {
    local found try
    for try in 1 2 3; do # a step that is as short as this one srun may lose, for it ended before it was heard
        # shellcheck disable=SC2016 # the node's shell expands it
        found=$(look "$(declare -f find_head find_port)"'
            end() { echo "launcher: ${*:3}"; exit "$2"; }
            sleep 0.2
            [ "$SLURM_NODEID" = 0 ] || exit 0
            find_head
            SLURM_JOB_ID=$1
            find_port
            echo "meeting $head $port $SLURM_STEP_NODELIST"' 2>&1) && break
        printf '%s\n' "$found"
        [ "$try" -lt 3 ] && [[ "$found" != *'Unable to create step'* && "$found" != *launcher:* ]] || exit 4
    done
    read -r _ head port nodes < <(grep -m 1 '^meeting ' <<<"$found") || refuse "the first node did not say where the others find it"
}

head=127.0.0.1 port=0 nodes=''
if [ "$count" -gt 1 ]; then meet; fi
make_key
export LAUNCHER_HEAD="$head"
LAUNCHER_DEADLINE=$(end_of_job)
export LAUNCHER_DEADLINE
say "in allocation $SLURM_JOB_ID${nodes:+, on $nodes, meeting at $head:$port}"

trap 'kill -TERM "$step" 2>/dev/null || true' TERM # srun ends the step by it, on every node
step &
step=$!
while :; do
    status=0
    wait "$step" || status=$?
    kill -0 "$step" 2>/dev/null || break
done
say "the step ended with status $status"
exit "$status"
