"""Programs that answer as SLURM's do, or as they do on a bad day: `FakeSlurm(folder).sbatch("accept 77; kill -9 $$")`.

What `sbatch`, `test_only`, `squeue`, `scontrol` and `sinfo` are given is bash. There, `accept NUMBER` puts the job into the queue, and
`fail TEXT…` prints each text on stderr and ends with status 1.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from launcher.clusters import submit
from launcher.clusters.slurm import scheduler

UNREACHABLE = "Unable to contact slurm controller (connect failure)"

_SBATCH = """\
printf '%s\\0' "$@" >>"$home/calls"; printf '\\n' >>"$home/calls"
declare -px >"$home/environment"
for last; do :; done
case " $* " in *" --test-only "*) . "$home/test_only"; exit ;; esac
printf '%s\\n' "$last" >>"$home/submitted"
accept() {
    local line name='' directory=''
    while IFS= read -r line; do case "$line" in '#SBATCH --job-name='*) name=${line#*=} ;; esac; done <"$last"
    for line; do :; done
    for line in "${words[@]}"; do case "$line" in --chdir=*) directory=${line#*=} ;; esac; done
    printf '%s\\n' "$1|$1|PENDING|Priority||N/A|2026-11-21T08:00:00|0:00|$name|$directory" >>"$home/queue"
}
words=("$@")
. "$home/sbatch"
"""
_SQUEUE = """\
only=''
for word; do case "$word" in --name=*) only=${word#*=} ;; esac; done
. "$home/squeue"
while IFS= read -r line; do [[ -n "$only" && "$line" != *"|$only|"* ]] || printf '%s\\n' "$line"; done <"$home/queue"
"""
_START = "echo 'sbatch: Job 1 to start at 2026-11-22T20:34:08 using 1 processors on nodes node1 in partition batch' >&2"
_PARTITION = (
    "echo 'PartitionName=batch Default=YES MaxNodes=UNLIMITED MaxTime=7-00:00:00 MinNodes=0 MaxCPUsPerNode=UNLIMITED State=UP "
    "TotalCPUs=64 TotalNodes=4 MaxMemPerNode=UNLIMITED TRES=cpu=64,mem=256G,node=4,billing=64'"
)


class FakeSlurm:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.bin = home / "bin"
        self.bin.mkdir(parents=True)
        for name, body in (("sbatch", _SBATCH), ("squeue", _SQUEUE), ("scontrol", '. "$home/scontrol"\n'), ("sinfo", '. "$home/sinfo"\n')):
            program = self.bin / name
            helper = 'fail() { printf "%s\\n" "$@" >&2; exit 1; }'
            program.write_text(f"#!/bin/bash\nhome='{home}'\n{helper}\n{body}")
            program.chmod(0o755)
        for name in ("git", "sleep"):
            if found := shutil.which(name):
                (self.bin / name).symlink_to(found)
        for name in ("calls", "submitted", "queue"):
            (home / name).touch()
        self.sbatch("accept 123; echo 123")
        self.test_only(_START)
        self.squeue(":")
        self.scontrol(_PARTITION)
        self.sinfo("echo idle; echo mixed")

    def instead(self, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
        """In place of all other programs. Data is prepared in a process of its own, which takes longer than all the rest: not here."""
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setattr(scheduler, "PATIENCE", (0.05,))
        monkeypatch.setattr(submit, "prepare_data", lambda node: submit.Found({}, {}))
        return self

    def sbatch(self, bash: str) -> None:
        self.answers("sbatch", bash)

    def test_only(self, bash: str) -> None:
        self.answers("test_only", bash)

    def squeue(self, bash: str) -> None:
        self.answers("squeue", bash)

    def scontrol(self, bash: str) -> None:
        self.answers("scontrol", bash)

    def sinfo(self, bash: str) -> None:
        self.answers("sinfo", bash)

    def everywhere(self, bash: str) -> None:
        for name in ("sbatch", "test_only", "squeue", "scontrol", "sinfo"):
            self.answers(name, bash)

    def answers(self, name: str, bash: str) -> None:
        (self.home / name).write_text(f"{bash}\n")

    def nothing_is_left(self) -> None:
        assert list((self.home.parent / "runs").glob("*")) == []

    @property
    def submitted(self) -> list[str]:
        """The scripts that sbatch was given in earnest, whatever became of them."""
        return (self.home / "submitted").read_text().splitlines()

    @property
    def calls(self) -> list[list[str]]:
        return [line.split("\0")[:-1] for line in (self.home / "calls").read_text().splitlines()]

    @property
    def environment(self) -> dict[str, str]:
        """What sbatch saw, last time."""
        lines = (self.home / "environment").read_text().splitlines()
        pairs = [line.removeprefix("declare -x ").partition("=") for line in lines if line.startswith("declare -x ")]
        return {name: value.strip('"') for name, _, value in pairs}
