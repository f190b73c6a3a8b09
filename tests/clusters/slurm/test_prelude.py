"""What a site's prelude does to a job: nothing, but what it is for; and where it fails, that is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_shell import Shell

from launcher.clusters.slurm import prelude_files as prelude
from launcher.errors import ConfigError
from launcher.rundir.rundir import RunDir
from launcher.verdict import evidence


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
    assert ("warning: the prelude failed: " in said) == bool(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("exit 5\n", "(status 5)"),
        ("exit 0\n", "(status 0)"),
        ("trap 'exit 0' EXIT\nexit 3\n", "(status 0)"),
        ("exec true\n", "(status 0)"),
        (
            "set -e\ntrue\nmodule load cuda/99\n",
            "line 4: module load cuda/99 (status 127); it did not come to its end (status 127)",
        ),
        ("set -euo pipefail\nfalse | true\n", "(status 1)"),
        ("set -u\necho $nowhere_set\n", "it did not come to its end"),
        ("set -n\n", "it did not come to its end"),
        ("kill -9 $BASHPID\n", "(status 137)"),
    ],
)
def test_a_prelude_that_does_not_come_to_its_end_is_told(shell: Shell, text: str, told: str) -> None:
    status, said = shell.start(f"echo before\n{text}")
    assert status == 4, said
    event = shell.events("prelude")[0]
    assert event["ends"]
    assert told in str(event["reason"])
    assert f"launcher: the prelude ended the job: {event['reason']}" in said
    assert evidence.prelude(RunDir(shell.run).read_events()) == event["reason"]
    assert not list((shell.run / "attempts").iterdir())


def test_a_strict_prelude_ends_the_job_before_it_has_an_attempt(shell: Shell) -> None:
    status, said = shell.start('module load "cuda/99"\n', prelude_strict=True)
    assert status == 4, said
    assert 'the prelude ended the job: site.sh line 1: module load "cuda/99" (status 127), and cluster.prelude_strict=true' in said
    assert not list((shell.run / "attempts").iterdir())
    assert shell.events("prelude")[0]["ends"]


@pytest.mark.parametrize(
    "text",
    [
        "trap 'echo theirs; exit 0' EXIT\ntrap 'echo theirs' TERM USR2 ERR\n",
        "set -fu -o posix; IFS=,; shopt -s nullglob failglob; export IFS GLOBIGNORE='*' POSIXLY_CORRECT=1 SECONDS=9\n",
        "set -euo pipefail\n",
        "cd /; umask 0; exec >/dev/null 2>&1\n",
        "run=/no code=/no limit=1 requeue=no; say() { exit 9; }\n",
        "readonly run=/no here=/no job=7 LAUNCHER_ATTEMPT=9; export run here launcher_prelude=x\n",
        "unset PATH\n",
        "readonly_of_theirs=1\nexport OMP_NUM_THREADS=77\n",
        "trap false DEBUG\n",
        "cd() { return 1; }; date() { echo garbage; }; printf() { :; }; export -f printf date; alias echo=false\n",
        "unset -f srun scontrol hostname\n",
        "return 0\n",
        "sleep 3 &\nexport DAEMON=$!\n",
    ],
    ids=["traps", "options", "strict", "place", "names", "readonly", "path", "threads", "debug", "functions", "unset", "return", "daemon"],
)
def test_what_a_prelude_leaves_behind_does_not_change_the_job(shell: Shell, text: str) -> None:
    status, said = shell.start(text)
    assert status == 0, said
    assert "theirs" not in said
    assert "all steps done" in said
    assert not [path for path in (shell.run / "prelude").iterdir() if path.name.startswith(".")]


def test_what_it_exports_unsets_and_limits_is_taken_over(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_SITE", "old")
    shell.stubs += "env() { command env; echo files $(ulimit -S -n); }\n"
    text = "unset OF_THE_SITE; export TWO=$'a\\nb=\\' c' PATH=/nowhere; readonly THREE=3; export THREE; ulimit -S -n 123\n"
    status, said = shell.start(text)
    assert status == 0, said
    seen = (shell.run / "seen").read_text()
    assert "OF_THE_SITE" not in seen
    assert "\nTWO=a\nb=' c\n" in seen
    assert "\nTHREE=3\n" in seen
    assert "\nfiles 123\n" in seen
    assert "\nPATH=/nowhere:/" in seen
    assert "the prelude failed: its PATH has no date; the PATH from before it was put behind" in said


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


@pytest.mark.parametrize("words", ['. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"', "source ../common.sh", "source ./large.sh"])
def test_what_is_not_copied_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    site = tmp_path / "site" / "site.sh"
    site.parent.mkdir()
    site.write_text(f"export A=1\n{words}\n. ../nowhere.sh\n")
    (tmp_path / "common.sh").write_text("export B=1\n")
    (site.parent / "large.sh").write_text("#" * (2**20 + 1))
    prelude.copy(site, tmp_path / "prelude")
    assert [path.name for path in (tmp_path / "prelude").iterdir()] == ["site.sh"]
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cluster.prelude={site} names {'large.sh' if 'large' in words else '../common.sh'}, which is not copied" in line


def test_a_glob_names_all_that_it_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "site" / "site.sh"
    (site.parent / "lib").mkdir(parents=True)
    for name in ("a.sh", "b.sh", "c.txt"):
        (site.parent / "lib" / name).write_text("true\n")
    site.write_text('for file in "$(dirname "${BASH_SOURCE[0]}")"/lib/*.sh; do . "$file"; done; echo * ../*\n')
    assert set(prelude.with_neighbours(site)[0]) == {"site.sh", "lib/a.sh", "lib/b.sh"}


def test_a_prelude_that_bash_cannot_read_is_refused_at_submit(tmp_path: Path) -> None:
    site = tmp_path / "site.sh"
    site.write_text("if true; then\n")
    with pytest.raises(ConfigError, match=r"cluster\.prelude: bash cannot read it: .*line 2.*; correct that line"):
        prelude.check(str(site))
