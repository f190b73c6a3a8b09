"""What a site's prelude does to a job: nothing, but what it is for; and where it fails, that is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_shell import Shell

from launcher import evidence, prelude
from launcher.errors import ConfigError
from launcher.rundir import RunDir


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("module load cuda/99\n", "site.sh line 1: module load cuda/99 (status 127)"),
        ("module() { return 1; }\ntrue\nmodule load gcc\nmodule load late\n", "site.sh line 3: module load gcc (status 1)"),
        ("source nothing.sh\n", "site.sh line 1: source nothing.sh (status 1)"),
        ("set -e\nfalse || true\n", ""),
        ("[ -n '' ] && echo x\nif false; then :; fi\n", ""),
        ("echo fine\n[ -f /nowhere ] && . /nowhere\n", ""),
    ],
)
def test_the_first_command_that_fails_is_told_and_training_begins(shell: Shell, text: str, told: str) -> None:
    status, said = shell.start(text)
    assert status == 0, said
    assert (shell.run / "seen").exists()
    assert evidence.prelude(RunDir(shell.run).read_events()) == told
    assert [event["reason"] for event in (shell.events("prelude"))] == ([told] if told else [])
    assert ("warning: the prelude failed in" in said) == bool(told)


def test_a_strict_prelude_ends_the_job(shell: Shell) -> None:
    status, said = shell.start("module load cuda/99\n", prelude_strict=True)
    assert status == 4, said
    assert "the prelude failed in site.sh line 1: module load cuda/99" in said
    assert not (shell.run / "seen").exists()


def test_a_prelude_that_exits_is_told(shell: Shell) -> None:
    status, said = shell.start("echo before\nexit 5\n")
    assert status == 5
    assert "the prelude ended the job with status 5: it must not call exit" in said
    assert evidence.prelude(RunDir(shell.run).read_events()) == "it ended the job with status 5"


@pytest.mark.parametrize(
    "text",
    [
        "trap 'echo theirs' EXIT TERM USR2 ERR\n",
        "set -fu -o posix; IFS=,; shopt -s nullglob failglob\n",
        "cd /\n",
        "run=/no code=/no limit=1 requeue=no strict=yes say() { exit 9; }\n".replace(" say", "; say"),
        "unset PATH\n",
        "readonly_of_theirs=1\nexport OMP_NUM_THREADS=77\n",
        "trap false DEBUG\n",
        "cd() { return 1; }; date() { echo garbage; }; printf() { :; }\n",
    ],
    ids=["traps", "options", "cd", "names", "path", "threads", "debug", "functions"],
)
def test_what_a_prelude_leaves_behind_does_not_change_the_job(shell: Shell, text: str) -> None:
    status, said = shell.start(text)
    assert status == 0, said
    assert "theirs" not in said
    assert "all steps done" in said


def test_a_prelude_is_copied_with_what_it_names_beside_itself(shell: Shell, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "lib").mkdir(parents=True)
    (site / "site.sh").write_text('. "$(dirname "${BASH_SOURCE[0]}")/gpu.sh"\nsource ./lib/net.sh\n')
    (site / "gpu.sh").write_text("export GPU=yes\n. lib/deep.sh\n")
    (site / "lib" / "net.sh").write_text("export NET=yes\n")
    (site / "lib" / "deep.sh").write_text("export DEEP=yes\n")
    (site / "unrelated").write_text("x")
    prelude.copy(site / "site.sh", shell.run / "prelude")
    copied = {path.relative_to(shell.run / "prelude").as_posix() for path in (shell.run / "prelude").rglob("*") if path.is_file()}
    assert copied == {"site.sh", "gpu.sh", "lib/net.sh", "lib/deep.sh"}
    status, said = shell.start(prelude="site.sh")
    assert status == 0, said
    assert {"GPU=yes", "NET=yes", "DEEP=yes"} <= set((shell.run / "seen").read_text().splitlines())
    assert not shell.events("prelude")


def test_a_prelude_that_bash_cannot_read_is_refused_at_submit(tmp_path: Path) -> None:
    site = tmp_path / "site.sh"
    site.write_text("if true; then\n")
    with pytest.raises(ConfigError, match=r"cluster\.prelude: bash cannot read it: .*line 2.*; correct that line"):
        prelude.check(str(site))
