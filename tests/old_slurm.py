"""Stand-ins for SLURM's programs that refuse, as getopt does, what the named version did not know: `OldSlurm(folder, "17.11")`.

The names are those of the option tables of that version's source (src/sbatch/opt.c, src/squeue/opts.c and so on).
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from fake_slurm import FakeSlurm

_BOTH = """\
    account= extra-node-info= cpus-per-task= constraint= cluster-constraint= dependency= chdir= error= hold help input= job-name=
    no-kill licenses= clusters= distribution= ntasks= nodes= output= overcommit oversubscribe partition= qos= quiet share core-spec=
    time= usage verbose version nodelist= wait exclude= acctg-freq= bb= bbf= begin= comment= contiguous cores-per-socket= cpu-freq=
    deadline= delay-boot= exclusive export= get-user-env gid= gres= gres-flags= hint= mail-type= mail-user= mcs-label= mem=
    mem-per-cpu= mem-bind= mincpus= network= nice ntasks-per-core= ntasks-per-node= ntasks-per-socket= open-mode= power= priority=
    profile= propagate reboot reservation= signal= sockets-per-node= spread-job switches= test-only thread-spec= threads-per-core=
    time-min= tmp= uid= use-min-nodes wckey=
"""
KNOWN = {
    "sbatch": f"{_BOTH} array= batch= ignore-pbs kill-on-invalid-dep= parsable no-requeue requeue wait-all-nodes= wrap= export-file=",
    "srun": f"""{_BOTH} preserve-env immediate join kill-on-bad-exit label relative= threads= unbuffered disable-status no-allocate
    accel-bind= bcast compress cpu-bind= epilog= mpi= msg-timeout= multi-prog pack-group= prolog= pty quit-on-interrupt resv-ports
    slurmd-debug= task-epilog= task-prolog=""",
    "squeue": """accounts= all array array-unique federation format= Format= help hide iterate= jobs local long licenses= clusters= name=
    noconvert node= nodelist= noheader partitions= priority qos= reservation= sibling sort= start states= steps usage user= users= verbose
    version""",
    "sacct": """allusers accounts= allocations brief completion delimiter= duplicates federation helpformat endtime= file= gid= group= help
    local name= nnodes= ncpus= jobs= timelimit-min= timelimit-max= long allclusters clusters= nodelist= noconvert units= noheader format=
    parsable parsable2 qos= partition= state= starttime= truncate uid= usage user= verbose version wckeys= associations=""",
    "scancel": """account= batch ctld full help hurry interactive clusters= jobname= name= nodelist= partition= qos= quiet reservation=
    sibling= signal= state= usage user= verbose version wckey=""",
    "scontrol": "all clusters= details federation future help hide local oneliner quiet sibling uid= usage verbose version",
    "sinfo": """all dead exact federation help hide iterate= local long clusters= nodes= noconvert noheader format= Format= partition=
    responding list-reasons summarize sort= states= reservation usage verbose version""",
}
"""Of 17.11, with a sign behind those that need a value."""
SHORT = {"squeue": "aAhijlLMnoOpPqrRsStuUvVw", "sacct": "aAbcCDeEfghiIjkKlLMnNopPqrsSTtuUvVWxX", "scancel": "AbfiMnpQqRstuvVw",
         "scontrol": "adhMFoQuvV", "sinfo": "abdehilMnNoOprRsStTvV"}  # fmt: skip
"""Of sbatch and srun we use none."""
SINCE = {
    "19.05": {"sbatch": "gpus= gpus-per-node= gpus-per-task= mem-per-gpu= cpus-per-gpu=", "srun": "gpus-per-node=", "sacct": "reason="},
    "20.02": {"squeue": "me"},
    "20.11": {"srun": "overlap exact"},
    "21.08": {"squeue": "json", "sinfo": "json", "sacct": "json"},
}
FIELDS = {"17.11": "State ExitCode NodeList JobID JobName Partition Elapsed", "19.05": "Reason"}
"""Of sacct."""

_GUARD = """\
refuse() {
    printf '%s\\n' "$name: $1" >>"$home/refused"
    printf '%s\\n' "$name: $1" "Try \\"$name --help\\" for more information" >&2
    exit 1
}
check() {
    local word option
    for word; do
        case "$word" in
        --) return ;;
        --*)
            option=${word#--} option=${option%%=*}
            case " $known " in
            *" $option "*) [[ "$word" != *=* || "$option" =~ ^(kill-on-bad-exit|nice|exclusive|propagate)$ ]] ||
                refuse "option '--$option' doesn't allow an argument" ;;
            *" $option= "*) [[ "$word" == *=* ]] || refuse "option '--$option' requires an argument" ;;
            *) refuse "unrecognized option '--$option'" ;;
            esac
            ;;
        -?*) [[ "$short" == *"${word:1:1}"* ]] || refuse "invalid option -- '${word:1:1}'" ;;
        *) [ "$name" != srun ] || return 0 ;; # the program begins
        esac
    done
}
script() { # FILE: its options, up to the first line that is none
    local line
    while IFS= read -r line; do
        case "$line" in '#SBATCH '*) check "${line#'#SBATCH '}" ;; '#'* | '') ;; *) return 0 ;; esac
    done <"$1"
}
printf '%s' "$name" >>"$home/asked"; printf ' %q' "$@" >>"$home/asked"; printf '\\n' >>"$home/asked"
check "$@"
case "$name" in
sbatch) for last; do :; done; [ ! -f "$last" ] || script "$last"; [[ " $* " != *" --test-only "* || -f "$last" ]] || script /dev/stdin ;;
sacct) for word; do case "$word" in --format=*)
    IFS=, read -ra wanted <<<"${word#*=}"
    for each in "${wanted[@]}"; do [[ " $fields " == *" $each "* ]] || refuse "error: Invalid field requested: \\"$each\\""; done
esac; done ;;
esac
"""


class OldSlurm(FakeSlurm):
    """`sacct`, `scancel` and `srun` answer too, and each keeps what it was asked in `asked`, and refused in `refused`."""

    def __init__(self, home: Path, version: str) -> None:
        super().__init__(home)
        for name in ("sacct", "scancel", "srun"):
            (self.bin / name).write_text(f'#!/bin/bash\nhome={shlex.quote(str(home))}\n. "$home/{name}"\n')
            (self.bin / name).chmod(0o755)
            self.answers(name, ":")
        later = [more for since, more in SINCE.items() if since <= version]
        fields = " ".join(more for since, more in FIELDS.items() if since <= version)
        for name, known in KNOWN.items():
            program = self.bin / name
            first, rest = program.read_text().split("\n", 1)
            options = " ".join([*known.split(), *(word for more in later for word in more.get(name, "").split())])
            short = SHORT.get(name, "")
            own = f"name={name} known='{options}' short='{short}' fields='{fields}' home={shlex.quote(str(home))}\n"
            program.write_text(f"{first}\n{own}{_GUARD}{rest}")
        for name in ("asked", "refused"):
            (home / name).touch()

    @property
    def asked(self) -> set[str]:
        """The programs that were asked something."""
        return {line.split()[0] for line in (self.home / "asked").read_text().splitlines()}

    @property
    def refused(self) -> list[str]:
        return (self.home / "refused").read_text().splitlines()

    @property
    def path(self) -> str:
        """Before the system's programs, for a job script."""
        return f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin"
