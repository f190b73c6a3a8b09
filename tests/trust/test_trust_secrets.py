"""What `${oc.env:NAME}` names is written nowhere: not in what a run is frozen to, submitted with, resumed and swept by."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import FakeSlurm
from helpers import PROJECT, Answer, Command, refused, run_dir
from omegaconf import OmegaConf

from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, freeze, stored_cluster
from launcher.config import home, references
from launcher.rundir import rundir
from launcher.rundir.rundir import RunDir
from launcher.start.launch import pin

CANARIES = {f"CANARY_{number}": f"canary{number}-S3cr t/{number}'q\"{number}$x+=&é" for number in range(1, 10)}
CANARIES |= {f"CANARY_{number}": f"canary{number}-tail" for number in (5, 10)}
EXP = r"""
# @package _global_
defaults:
  - toy
  - override /data: leaky
  - override /loader: leaky

data:
  in_yaml: ${oc.env:CANARY_1}
  url: postgres://user:${oc.env:CANARY_2}@host/db
  inside: [1, "a${oc.env:CANARY_3}b", {deep: "${oc.env:CANARY_3}"}]
  default: ${oc.env:CANARY_4,none}
  decoded: ${oc.decode:${oc.env:CANARY_5}}
  by_way_of: ${data.in_yaml}/${data.url}
  chosen: ${oc.env:${oc.env:WHICH_CANARY}}
  text: \${oc.env:CANARY_1}
"""
LEAKY = ("--config-dir", "conf", "+exp=leaky")
ON_SLURM = (
    *("cluster=slurm", "cluster.device=cpu", "cluster.shared_filesystem=true", "cluster.container=apptainer"),
    "+cluster.env.WANDB_API_KEY=${oc.env:CANARY_6}",
    "+cluster.env.URL='postgres://u:${oc.env:CANARY_7}@h/${oc.env:CANARY_7}'",
    "+cluster.env.DEFAULT='${oc.env:CANARY_8,a b}'",
    "cluster.image='docker://u:${oc.env:CANARY_9}@host/image'",
    "+cluster.srun.comment=${oc.env:CANARY_10}",
)


def write_conf(place: Path) -> None:
    """The toy project's, and an exp that names a canary in every place of a yaml."""
    shutil.copytree(PROJECT / "conf", place)
    (place / "exp" / "leaky.yaml").write_text(EXP.lstrip())
    (place / "data" / "leaky.yaml").write_text("_target_: toyproject.leaky.Leaky\nseen: null\n")
    (place / "loader" / "leaky.yaml").write_text("_target_: toyproject.leaky.LeakyLoader\nfail_at: null\nkill_at: null\n")


def found_in(data: bytes) -> list[str]:
    """Which canaries are there, in any spelling."""
    text = data.decode("utf-8", "replace")
    spelled = (text, urllib.parse.unquote(text), text.replace("\\", ""))
    heads = {name: value.partition(" ")[0] for name, value in CANARIES.items()}
    codes = {name: base64.b64encode(head[:9].encode()).decode()[:12] for name, head in heads.items()}
    return [name for name in CANARIES if codes[name] in text or any(heads[name].split("-")[0] + "-" in each for each in spelled)]


def found_below(place: Path) -> dict[str, list[str]]:
    files = [path for path in place.rglob("*") if path.is_file() and path.name != "environment"]
    return {str(path): names for path in files if (names := found_in(path.read_bytes()))}


@pytest.fixture(autouse=True)
def canaries(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name, value in (CANARIES | {"WHICH_CANARY": "CANARY_6", "MY_DIR": "/canary-is-no-secret"}).items():
        monkeypatch.setenv(name, value)
    write_conf(tmp_path / "conf")
    command("--version")
    yield
    assert found_below(tmp_path) == {}


def frozen(*words: str) -> Frozen:
    made: list[Frozen] = []
    compose(list(words), lambda config, overrides: made.append(freeze(config, overrides)))
    return made[0]


def silent(answer: Answer) -> Answer:
    assert found_in(answer.out.encode()) == found_in(answer.err.encode()) == []
    return answer


def test_ten_secrets_named_in_every_place_are_written_nowhere(command: Command, fake: FakeSlurm, tmp_path: Path) -> None:
    words = (*LEAKY, *ON_SLURM, f"runs_dir={tmp_path / 'runs'}")
    for verb in ("render", "plan"):
        assert silent(command(verb, *words)).code == 0
    done = silent(command("run", *words, "id=one", "+data.typed=x${oc.env:CANARY_2}y"))
    assert done.code == 0, done.err
    here = RunDir(run_dir(done))
    text = here.config.read_text() + here.script.read_text()
    assert all(f"oc.env:{name}" in text or f"${{{name}" in text for name in CANARIES)
    fake.answers("squeue", ":")
    (fake.home / "queue").write_text("")
    assert silent(command("resume", str(here))).code == 0
    swept = "data.a=${oc.env:CANARY_3},'u:${oc.env:CANARY_4}'"
    done = silent(command("-m", *words, "id=sweep", f"+{swept}", "seed=1,2"))
    assert done.code == 0, done.err
    swept = [(tmp_path / "runs" / "toy" / f"sweep-{number}" / "config.yaml").read_text() for number in range(4)]
    assert all("  a: ${oc.env:CANARY_3}" in text for text in swept[:2])
    assert all("  a: u:${oc.env:CANARY_4}" in text for text in swept[2:])
    for verb in ("status", "why", "logs"):
        silent(command(verb, "one"))


def test_a_run_that_was_moved_is_rendered_without_them(command: Command, fake: FakeSlurm, tmp_path: Path) -> None:
    done = command(*LEAKY, *ON_SLURM, f"runs_dir={tmp_path / 'runs'}", "id=one")
    run_dir(done).rename(moved := tmp_path / "moved")
    (fake.home / "queue").write_text("")
    assert silent(command("resume", str(moved))).code == 0
    assert '"${CANARY_6}"' in (moved / "job.sh").read_text()


SCRIPTS = """\
export SLURM_JOB_ID=7 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=node1
hostname() { echo 10.0.0.1; }
scontrol() { case "$1" in show) echo "JobState=RUNNING" ;; esac; }
srun() { printf '%s\\0' "$WANDB_API_KEY" "$URL" "$DEFAULT" "$@" >&3; printf 'done\\n' >"$run/attempts/$LAUNCHER_ATTEMPT/outcome"; }
"""


def job(here: RunDir, env: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The script of a run in bash; what its step was given."""
    read, write = os.pipe()
    script = f"exec 3>&{write}\n{SCRIPTS}{here.script.read_text()}"
    done = subprocess.run(["bash", "-c", script], env=env, pass_fds=(write,), capture_output=True, text=True, check=False, timeout=60)
    os.close(write)
    with os.fdopen(read) as seen:
        return done, seen.read().split("\0")


def test_the_jobs_shell_takes_them_from_its_own_environment(command: Command, tmp_path: Path) -> None:
    made = frozen(*LEAKY, *ON_SLURM, f"runs_dir={tmp_path / 'runs'}", "+cluster.env.TEXT='\\${oc.env:CANARY_1}'")
    here = rundir.create(Path(made.plan.run_dir))
    here.freeze(made.plan, made.config, made.script)
    (here.path / "code").mkdir()
    for changed in ({}, {"CANARY_6": "rotated; `x`"}):
        env = {**os.environ, **changed}
        done, seen = job(here, env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert seen[:3] == [env["CANARY_6"], f"postgres://u:{env['CANARY_7']}@h/{env['CANARY_7']}", env["CANARY_8"]]
        assert {f"docker://u:{env['CANARY_9']}@host/image", f"--comment={env['CANARY_10']}"} <= {*seen}
        assert found_in((done.stdout + done.stderr).encode()) == []
    assert "export TEXT='${oc.env:CANARY_1}'" in made.script
    done, seen = job(here, {name: value for name, value in os.environ.items() if name not in ("CANARY_8", "CANARY_9")})
    assert (done.returncode, done.stdout, seen) == (4, "", [""])
    (line,) = done.stderr.splitlines()
    assert "has no CANARY_9; export it" in line
    done, seen = job(here, {name: value for name, value in os.environ.items() if name != "CANARY_8"})
    assert seen[2] == "a b"


REFUSED = (
    ("name=${oc.env:CANARY_6}", "name"),
    ("id=x${oc.env:CANARY_10}", "id"),
    ("name=${data.in_yaml}", "name"),
    ("runs_dir=${oc.env:CANARY_6}/x", "runs_dir"),
    ("cluster.account=${oc.env:CANARY_10}", "cluster.account"),
    ("+cluster.sbatch.comment='x ${oc.env:CANARY_6}'", "cluster.sbatch.comment"),
    ("cluster.prelude=${oc.env:CANARY_6}", "cluster.prelude"),
    ("cluster.time=${oc.env:CANARY_6}", "cluster.time"),
    ("train.precision=${oc.env:CANARY_6}", "train.precision"),
    ("seed=${oc.env:CANARY_6}", "seed"),
    ("model=${oc.env:CANARY_6}", "model"),
    ("data._target_=${oc.env:CANARY_6}", "data._target_"),
    ("cluster.image='docker://u:${oc.env:LEN_KEY}@host/image'", "cluster.image", "argument of srun"),
    ("+cluster.env.A='${oc.decode:${oc.env:CANARY_10}}'", "cluster.env.A"),
    ("data.decoded='${oc.decode:${oc.env:CANARY_6}}'", "data.decoded", "leave out oc.decode"),
    ("+cluster.env.A=${oc.env:NOT_THERE}", "cluster.env.A", "export NOT_THERE"),
    ("data.in_yaml=${oc.env:NOT_THERE}", "data.in_yaml", "export NOT_THERE"),
    ("train.epochs=${oc.env:LEN_KEY}", "train.epochs", "LEN_KEY is called as a secret is"),
)


@pytest.mark.parametrize(("word", "parts"), [(word, parts) for word, *parts in REFUSED], ids=[row[0] for row in REFUSED])
def test_where_it_would_be_written_it_is_refused_in_a_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, word: str, parts: list[str]
) -> None:
    monkeypatch.setenv("LEN_KEY", "123456")
    refused(silent(command("render", *LEAKY, *ON_SLURM, word)), 2, *parts)


def test_a_place_and_a_user_are_no_secret(command: Command) -> None:
    out = command("render", *LEAKY, *ON_SLURM, "runs_dir=${oc.env:MY_DIR}/x", "name=a-${oc.env:USER_RUN,b}").out
    assert "run=/canary-is-no-secret/x/a-b/" in out


def test_the_worker_reads_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = frozen(*LEAKY, f"runs_dir={tmp_path / 'runs'}", "+data.list=['\\${oc.env:CANARY_1}',${oc.env:CANARY_6}]")
    monkeypatch.setenv("CANARY_1", "rotated")
    monkeypatch.delenv("CANARY_4")
    (tmp_path / "config.yaml").write_text(made.config)
    data = home.everywhere(references.resolved(OmegaConf.load(tmp_path / "config.yaml")))["data"]
    assert data["in_yaml"] == "rotated"
    assert data["by_way_of"] == f"rotated/postgres://user:{CANARIES['CANARY_2']}@host/db"
    assert data["inside"] == [1, f"a{CANARIES['CANARY_3']}b", {"deep": CANARIES["CANARY_3"]}]
    assert (data["default"], data["chosen"]) == ("none", CANARIES["CANARY_6"])
    assert (data["text"], data["list"]) == ("${oc.env:CANARY_1}", ["${oc.env:CANARY_1}", CANARIES["CANARY_6"]])


def test_a_run_is_the_same_whatever_the_value_is(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*LEAKY, "id=x", "+data.more='${oc.env:CANARY_6}'")
    one = frozen(*words).plan.config_hash
    monkeypatch.setenv("CANARY_6", "rotated")
    assert frozen(*words).plan.config_hash == one != frozen(*words[:-1], "+data.more='${oc.env:CANARY_7}'").plan.config_hash


@pytest.mark.parametrize(("written", "found", "kept"), [
    ("${oc.env:CANARY_6}", CANARIES["CANARY_6"], "${oc.env:CANARY_6}"),
    ("${oc.env:MY_DIR}/", "/canary-is-no-secret", "${oc.env:MY_DIR}/"),
    ("${oc.env:CANARY_6}", f"/x/{CANARIES['CANARY_6']}", "/x/${oc.env:CANARY_6}"),
    ("auto", "${text}", "\\${text}"),
])  # fmt: skip
def test_what_the_data_was_found_to_be_stays_a_reference(written: str, found: str, kept: str) -> None:
    config = OmegaConf.create({"name": "x", "data": {"root": written}})
    data: Any = references.resolved(config)["data"]
    pin(config, data, {"root": found})
    assert OmegaConf.to_container(config) == {"name": "x", "data": {"root": kept}}
    assert references.resolved(config)["data"]["root"].rstrip("/") == found


def test_what_is_asked_once_stays_what_it_was_answered(tmp_path: Path) -> None:
    made = frozen(*LEAKY, f"runs_dir={tmp_path}", "+data.more='${now:%Y}\\${now:%f}'")
    assert "\\${now:%f}" in made.config
    assert "${now:%f}" in str(references.resolved(OmegaConf.create(made.config)))


def test_a_stored_cluster_is_checked_as_it_is_written(tmp_path: Path) -> None:
    made = frozen(*LEAKY, *ON_SLURM, f"runs_dir={tmp_path / 'runs'}", "cluster.mounts=['${oc.env:CANARY_10}:/data']")
    here = rundir.create(Path(made.plan.run_dir))
    here.freeze(made.plan, made.config, made.script)
    again = stored_cluster(here)
    assert again.world() == made.plan.world
    assert again.render(made.plan) == made.script
