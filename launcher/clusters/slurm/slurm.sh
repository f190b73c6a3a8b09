# ---- The life of one attempt. From here on every job has the same text: launcher/clusters/slurm/slurm.sh.

here="$run/attempts/$LAUNCHER_ATTEMPT"
job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"
job="${job:-$SLURM_JOB_ID}"
export LAUNCHER_JOB="$SLURM_JOB_ID"
# bash runs what stands in the brackets of `a[$(…)]` where a number is due: nothing is computed with what is not one.
is_number() { [[ "$1" =~ ^[0-9]{1,15}$ ]]; }
is_number "$SLURM_JOB_ID" || { echo "launcher: SLURM_JOB_ID is no number; a prelude or the environment changed it" >&2 && exit 4; }
is_number "${SLURM_JOB_END_TIME:-}" || unset SLURM_JOB_END_TIME
say() { printf '%s launcher: %s\n' "$(date +%Y-%m-%dT%H:%M:%S)" "$*"; }

event() { # NAME WORD…: one line of the ledger
    local reason="${*:2}"
    reason="${reason//[[:cntrl:]]/ }"
    reason="${reason//\\/\\\\}"
    [ ! -L "$run/events.jsonl" ] || return 0
    printf '{"time": %s, "event": "%s", "attempt": %d, "job": "%s", "reason": "%s"}\n' \
        "$(date +%s)" "$1" "$((10#$LAUNCHER_ATTEMPT))" "$job" "${reason//\"/\\\"}" >>"$run/events.jsonl" || true
}

put() { # FILE TEXT: anew, for in a copy of somebody else's run a link may be in its place, and lead to a file of mine
    rm -f "$1.new"
    (set -C && printf '%s\n' "$2" >"$1.new") && mv -fT "$1.new" "$1"
}

end() { # WORD STATUS REASON…: how this attempt ended, for the next one and for `why`
    printf '%s\n' "$1" >"$here/ended" || true
    printf '%s\n' "$SECONDS" >"$here/lasted" || true
    say "attempt $LAUNCHER_ATTEMPT $1: ${*:3}"
    exit "$2"
}

newest_checkpoint() { find "$run/checkpoints" -maxdepth 1 -name 'step_*' -printf '%f\n' 2>/dev/null | sort -t_ -k2n | tail -n 1 || true; }

read_word() { { head -c 200 "$1" | head -n 1; } 2>/dev/null || true; }

# A controller that says nothing, or does not stop, must not keep a job from being requeued.
ask_job() { { timeout --kill-after=5 60 scontrol show job "$job" -o 2>/dev/null | head -c 65536; } || true; }

# Empty where nobody answers. While it delivers a signal or changes the size, a job is as running as before.
job_state() {
    ask_job | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' | head -n 1 | sed 's/SIGNALING\|RESIZING/RUNNING/'
}

# Seconds since the epoch at which the scheduler ends this job: its own word, for an administrator may have changed it since.
end_of_job() {
    local word
    word=$(ask_job | sed -n 's/.* EndTime=\([0-9T:-]*\) .*/\1/p' | head -n 1)
    { [ -n "$word" ] && date -d "$word" +%s 2>/dev/null; } || echo "${SLURM_JOB_END_TIME:-$(($(date +%s) + limit - SECONDS))}"
}

# An exception is not retried; what is retried must get somewhere (launcher/verdict/headway.py). Where nothing here can judge, the first node does,
# in its container (launcher/node/__main__.py).
stop_if_stuck() {
    local why
    newest_checkpoint >"$here/checkpoint"
    printf '%s\n' "$job" >"$here/job"
    [ "$((10#$LAUNCHER_ATTEMPT))" -ge 3 ] || return 0
    if ! why=$("$python" -m launcher.verdict.headway "$run" "$((10#$LAUNCHER_ATTEMPT))" "$limit" 2>/dev/null); then
        export LAUNCHER_LIMIT="$limit"
        return 0
    fi
    [ -n "$why" ] || return 0
    event stuck "$why"
    end stuck 1 "$why; look at: python -m launcher why $run"
}

# The address at which the other nodes reach this one. Never a loopback, never a guess: each node would train a world of its own.
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

# From the job's number, so that two jobs on a node do not meet; the next one where something listens already.
find_port() {
    local try
    for try in {0..99}; do
        port=$((20000 + (SLURM_JOB_ID * 7 + try) % 12000)) # below what Linux gives to clients, 32768 and up
        # 0A is LISTEN. On whatever address it is: the meeting listens on all of them.
        grep -qs ":$(printf %04X "$port") [0-9A-F]*:0000 0A" /proc/net/tcp /proc/net/tcp6 || return 0
    done
    end failed 4 "a hundred ports of $head from $port down are taken"
}

# By this the nodes know each other, and nobody else gets in: launcher/train/world/meeting.py.
make_key() {
    (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$here/meeting.key") || end failed 3 "$here/meeting.key cannot be written"
}

# It has cancelled the job, or taken it off these nodes to start it elsewhere: not ours to requeue.
leave_to_scheduler() { # STATE
    case "$1" in
    PENDING | CONFIGURING | COMPLETING | REQUEUE*) end taken 0 "the scheduler has taken the job off these nodes ($1)" ;;
    *) end "$(printf %s "$1" | tr '[:upper:]' '[:lower:]')" 1 "the scheduler has this job as $1" ;;
    esac
}

# Ask for another attempt, as long as the job is ours to requeue: one that was cancelled is not.
requeue() { # WORD REASON…
    local state tries
    [ "$requeue" = yes ] || end stopped 75 "$2; go on with: python -m launcher resume $run"
    [ "$(read_word "$run/.claim")" = "$LAUNCHER_ATTEMPT" ] || end fenced 1 "a newer attempt has taken over"
    for tries in {1..60}; do
        state=$(job_state)
        case "$state" in
        RUNNING)
            printf '%s\n' "$SECONDS" >"$here/lasted"
            printf 'requeued-%s\n' "$1" >"$here/ended"
            event requeued "$2"
            if scontrol requeue "$job"; then
                leave_out
                say "requeued: $2"
                exit 0
            fi
            ;;
        '') [ "$tries" -gt 1 ] || say "the controller does not answer or scontrol is missing; trying for ten minutes" ;;
        *) leave_to_scheduler "$state" ;;
        esac
        # A preempted job is requeued by the scheduler itself at the end of its grace, if it still runs then.
        command -v scontrol >/dev/null || [ "$tries" -lt 3 ] || [ "$1" = preempted ] || break
        sleep 10 &
        wait $! || true
    done
    put "$run/REQUEUE" "$2"
    event left "no scontrol on $(hostname)"
    end stopped 75 "$2, and this node cannot requeue the job (no scontrol, or no controller); go on with: python -m launcher resume $run"
}

# SLURM takes this of a job that waits, which a requeued one does at once; it starts no earlier than this shell has ended. Meanwhile it
# sends TERM to all that runs here.
leave_out() {
    [ -n "$exclude" ] || return 0
    trap '' TERM
    scontrol update JobId="$job" ExcNodeList="$exclude" || say "the scheduler did not take ExcNodeList=$exclude"
}

# Where cluster.doctor=true asks for it: look at the nodes before training. Bad ones are left out, once a job; the next time it ends.
look_at_nodes() {
    local patient second state why
    set -m # a process group of its own, to end all of it
    examine &
    patient=$!
    set +m
    for ((second = 0; second < 260; second++)); do
        [ "$second" -ne 240 ] || kill -TERM -- "-$patient" 2>/dev/null || true
        kill -0 "$patient" 2>/dev/null || break
        sleep 1 &
        wait $! || true
    done
    kill -KILL -- "-$patient" 2>/dev/null || true
    state=$(job_state)
    case "$state" in RUNNING | '') ;; *) leave_to_scheduler "$state" ;; esac
    if [ ! -e "$here/doctor.json" ]; then
        [ -z "$warned$told" ] || return 0 # the scheduler ended it, not a node
        "$python" -m launcher.doctor.findings "$run" "$LAUNCHER_ATTEMPT" || say "the examination left no report; training without"
    fi
    if [ ! -s "$here/bad_nodes" ]; then
        why=$(sed -n 's/^ *"problem": "\(.\{1,\}\)",*$/\1/p' "$here/doctor.json" 2>/dev/null | head -n 1 || true)
        say "the doctor names no bad node${why:+; but $why}"
        return 0
    fi
    leave_bad_out doctor "the doctor names bad nodes" "$here/doctor.json"
}

# Go on without the nodes in bad_nodes, as long as there are others: for the doctor once a job, lest it examines for ever.
leave_bad_out() { # WORD, WHAT FOUND THEM, WHERE THE REASONS ARE
    local bad why=''
    bad=$(paste -sd, "$here/bad_nodes" 2>/dev/null || true)
    exclude=$(ask_job | sed -n 's/.* ExcNodeList=\([^ ]*\).*/\1,/p' | head -n 1 || true)
    exclude="${exclude#(null),}$bad"
    if [ "$1" = doctor ] && [ "$(read_word "$run/.doctor")" = "$job" ]; then
        why="this job has left bad nodes out before"
    elif [ "$requeue" != yes ]; then
        why="cluster.requeue=false"
    elif [ "$(wc -l <"$here/bad_nodes")" -ge "$SLURM_JOB_NUM_NODES" ] && [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
        why="those are all nodes it has"
    elif [[ "$(timeout 60 sbatch --test-only --chdir="$run" --exclude="$exclude" "$run/job.sh" 2>&1 | head -c 65536 || true)" == *'not available'* ]]; then
        why="without them there are too few"
    fi
    event "$1" "bad: $bad"
    [ -z "$why" ] || end failed 4 "$2: $bad; $why; the reasons are in $3"
    [ "$1" != doctor ] || put "$run/.doctor" "$job"
    requeue "$1" "goes on without the bad nodes $bad; the reasons are in $3"
}

# Whether every node of the job still answers: a step that only says so. `drill nodefail` plays that one does not.
nodes_answer() {
    local said share
    ! rm "$run/.drill" 2>/dev/null || return 1
    for share in --overlap ''; do # before 20.11 steps share a node without being told to, and srun does not know the word
        # shellcheck disable=SC2086
        said=$(timeout 60 srun $share --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --input=none true 2>&1 | head -c 65536) && return 0
        [[ "$said" == *'nrecognized option'* ]] || return 1
    done
}

warned='' told='' exclude='' anyway=''
# shellcheck disable=SC2329 # the trap calls it
warn() {
    warned=1
    say "the time limit or preemption is near: asking the run to save and stop"
    put "$run/STOP" scheduler || true
    [ "$requeue" = no ] || [ -n "$anyway" ] || {
        go_on_anyway &
        anyway=$!
    }
}

# shellcheck disable=SC2329
leave_nothing() { [ -z "$anyway" ] || kill "$anyway" 2>/dev/null || true; } # not every scheduler finds what outlives this shell

# A step or a save that outlasts the warning must not end the run: at its limit a job is killed for good. Better to lose some steps.
# shellcheck disable=SC2329
go_on_anyway() {
    local left nap=''
    trap 'kill "$nap" 2>/dev/null; exit' TERM
    while left=$(($(end_of_job) - $(date +%s) - 8)) && [ "$left" -gt 0 ]; do
        sleep "$left" &
        nap=$!
        wait "$nap" || true
    done
    trap '' TERM # from here on it ends by itself
    [ "$(read_word "$run/.claim")" = "$LAUNCHER_ATTEMPT" ] && [ ! -e "$here/ended" ] || return 0 # where it outlived its attempt
    say "no stop in time: requeueing before the limit, from the newest checkpoint"
    event requeued "no stop before the time limit"
    printf '%s\n' "$SECONDS" >"$here/lasted"
    printf 'requeued-limit\n' >"$here/ended"
    scontrol requeue "$job"
}
trap warn USR2
trap leave_nothing EXIT
trap 'told=1; say "TERM"' TERM

# From here on no older attempt writes into the run (launcher/rundir/claim.py), be it alive on a node that was given up.
put "$run/.claim" "$LAUNCHER_ATTEMPT"

# What the site's own lines said (launcher/clusters/slurm/prelude.sh).
tell_prelude() {
    [ -n "${launcher_prelude:-}" ] || return 0
    event prelude "$launcher_prelude"
    say "warning: the prelude failed: $launcher_prelude; training begins all the same (cluster.prelude_strict=true ends the job then)"
}

tell_prelude
stop_if_stuck
find_head
find_port
make_key
export LAUNCHER_HEAD="$head"
LAUNCHER_DEADLINE=$(end_of_job)
export LAUNCHER_DEADLINE
rm -f "$run/STOP" "$run/REQUEUE"
event attempt "nodes $SLURM_JOB_NODELIST"
say "attempt $LAUNCHER_ATTEMPT: job $job, restart ${SLURM_RESTART_COUNT:-0}, nodes $SLURM_JOB_NODELIST, meeting at $head:$port"

if declare -F examine >/dev/null; then look_at_nodes; fi
step & # bash runs a trap while it waits, not behind a step in the foreground
step=$!
while :; do
    status=0
    wait "$step" || status=$?
    kill -0 "$step" 2>/dev/null || break
done

outcome=$(read_word "$here/outcome")
case "$outcome" in
"done") end "done" 0 "all steps done" ;;
stopped*)
    [ -n "$warned" ] || [ "$outcome" != "stopped file" ] || end stopped 75 "as the STOP file asked; go on with: python -m launcher resume $run"
    case "$outcome" in
    'stopped signal') requeue preempted "told to stop and saved" ;;
    *) requeue limit "the time limit is near, saved" ;;
    esac
    ;;
hardware) leave_bad_out hardware "a GPU failed" "$here/error.json" ;;
hung) requeue hung "a rank hung; see: python -m launcher why $run" ;;
failed) end failed 1 "a rank failed; see: python -m launcher why $run" ;;
esac
if grep -qsiE 'ECC|launch failure|NVLink|hardware|GPU node-|GPU is lost|off the bus|from bus|Xid|async event|not yet initialized' "$here"/rank_*.log &&
    "$python" -m launcher.node.hardware "$run" "$LAUNCHER_ATTEMPT"; then
    leave_bad_out hardware "a GPU failed" "the logs of the ranks"
fi
# NCCL's own watchdog ends a process with SIGABRT, without error.json: a collective that did not end is a hang, and no crash.
if grep -qsE 'Watchdog caught collective operation timeout|operations have failed or timed out|watchdog got stuck' "$here"/rank_*.log; then
    requeue hung "NCCL gave up a collective that did not end; see: python -m launcher why $run"
fi
state=$(job_state)
if [ -n "$state" ] && [ "$state" != RUNNING ]; then
    leave_to_scheduler "$state"
elif ! nodes_answer; then
    requeue node "a node of $SLURM_JOB_NODELIST no longer answers"
fi
end failed 1 "the step ended with status $status; see: python -m launcher why $run"
