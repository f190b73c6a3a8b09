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
