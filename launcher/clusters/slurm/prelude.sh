# The prelude ran in a shell of its own: what it exported, unset and limited is taken over, and nothing else can be.
launcher_word() { { head -c 300 "$1" | head -n 1; } 2>/dev/null || true; }
launcher_take_over() { # FILE: NAME=VALUE, each with a zero byte behind it
    local launcher_line launcher_name
    local -A launcher_there=()
    while IFS= read -r -d '' launcher_line; do
        launcher_name="${launcher_line%%=*}"
        [[ "$launcher_name" =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || continue # a function: ours are bash's own
        launcher_there[$launcher_name]=yes
        case "$launcher_name" in
        _ | IFS | PWD | OLDPWD | SHLVL | UID | EUID | PPID | GROUPS | SHELLOPTS | BASHOPTS | BASH_VERSINFO | POSIXLY_CORRECT) ;;
        GLOBIGNORE | CDPATH | SECONDS | RANDOM | LINENO | TMOUT | FUNCNAME | PIPESTATUS | DIRSTACK | launcher_*) ;; # they change this shell
        *) export "${launcher_line?}" ;;
        esac
    done <"$1"
    for launcher_name in $(compgen -e); do
        [ -n "${launcher_there[$launcher_name]:-}" ] || [ "$launcher_name" = PATH ] || unset "$launcher_name" || true
    done
}
launcher_ends() { # WHAT FAILED: before this job has an attempt
    local reason="${1//[[:cntrl:]]/ }"
    reason="${reason//\\/\\\\}"
    [ -L "$2" ] || printf '{"time": %s, "event": "prelude", "ends": true, "job": "%s", "reason": "%s"}\n' \
        "$(date +%s)" "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-${SLURM_JOB_ID:-}}" "${reason//\"/\\\"}" >>"$2" || true
    echo "launcher: the prelude ended the job: $1"
    exit 4
}
launcher_finish_prelude() { # STATUS FOLDER LEDGER STRICT
    local name value behind="$PATH"
    launcher_prelude=$(launcher_word "$2/.failed")
    [ -f "$2/.limits" ] ||
        launcher_ends "${launcher_prelude:+$launcher_prelude; }it did not come to its end (status $1): no exit, exec, set -e or set -u in it" "$3"
    launcher_take_over "$2/.environment"
    while read -r name value; do ulimit -S "-$name" "$value" 2>/dev/null || true; done <"$2/.limits"
    for name in scontrol srun date find sed grep head; do
        command -v "$name" >/dev/null 2>&1 || ! PATH="$behind" command -v "$name" >/dev/null 2>&1 || {
            PATH="${PATH:+$PATH:}$behind"
            launcher_prelude="${launcher_prelude:-its PATH has no $name; the PATH from before it was put behind}"
        }
    done
    rm -f "$2/.environment" "$2/.limits" "$2/.failed"
    [ -z "$launcher_prelude" ] || [ "$4" = no ] || launcher_ends "$launcher_prelude, and cluster.prelude_strict=true" "$3"
}
