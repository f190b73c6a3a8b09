"""Hostile strings in every place of a batch job that takes a text: refused in one line, or carried as they are and nothing else happens."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Answer, refused
from test_render import PLAN
from test_shell import HOSTILE
from test_slurm_values import BREAKS, directives

from launcher.clusters.slurm import Slurm
from launcher.errors import ConfigError
from launcher.plan import Plan, World

Command = Callable[..., Answer]
Options = Callable[[str], dict[str, Any]]

CPU = {"device": "cpu", "nodes": 2}
FIELDS: dict[str, Options] = {
    **{
        name: lambda text, name=name: {name: text}
        for name in ("partition", "account", "qos", "constraint", "exclude", "interface", "memory", "prelude", "gpu_request", "time")
    },
    "gpu_type": lambda text: {"gpu_type": text, "device": "cuda"},
    "sbatch.comment": lambda text: {"sbatch": {"comment": text}},
    "srun.comment": lambda text: {"srun": {"comment": text}},
    "env.HOSTILE": lambda text: {"env": {"HOSTILE": text}},
    "env": lambda text: {"env": {text: "x"}},
    "sbatch": lambda text: {"sbatch": {text: "x"}, "site_options": [text]},
    "srun": lambda text: {"srun": {text: "x"}, "site_options": [text]},
    "image": lambda text: {"image": text, "container": "pyxis"},
    "container_python": lambda text: {"container_python": text, "image": "x", "container": "apptainer"},
    "mounts": lambda text: {"mounts": [f"{text}:/x"], "image": "x", "container": "apptainer"},
}
DIRECTIVES = {"partition", "account", "qos", "constraint", "exclude", "memory", "gpu_type", "sbatch.comment", "time", "sbatch"}
"""Fields that have an `#SBATCH` line of their own."""
TEXTS = (*HOSTILE, *BREAKS, "é\udcff")


def rendered(options: dict[str, Any], plan: Plan = PLAN) -> str:
    cluster = Slurm(**{**CPU, **options})
    return cluster.render(dataclasses.replace(plan, world=cluster.world()))


@pytest.mark.parametrize("field", FIELDS)
def test_a_hostile_text_is_refused_by_name_or_adds_nothing_to_what_sbatch_reads(field: str) -> None:
    plain = directives(rendered({**FIELDS[field]("A"), **({} if field in ("env", "sbatch", "srun") else _harmless(field))}))
    refusals = set[str]()
    for text in TEXTS:
        try:
            found = directives(rendered(FIELDS[field](text)))
        except ConfigError as error:
            refusals.add(str(error))
            continue
        new = {key: value for key, value in found.items() if plain.get(key) != value}
        assert set(new.values()) <= ({text, f"{text}:1"} if field in DIRECTIVES else set()), (text, new)
        assert set(found) - set(plain) <= ({text, "comment"} if field in DIRECTIVES else set())
    assert refusals  # of the line breaks at least
    assert [line for line in refusals if "\n" in line or not re.match(rf"cluster\.{re.escape(field)}\b", line)] == []


def _harmless(field: str) -> dict[str, Any]:
    """`a` is no time, no memory and no way to ask for GPUs."""
    return {"time": {"time": "4:00:00"}, "memory": {"memory": "0"}, "gpu_request": {"gpu_request": "gres"}}.get(field, {})


def quoted(text: str) -> str:
    """As a value on the command line, so that Hydra and OmegaConf hand it over as it is."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (found[2] and "\\'"), text.replace("${", "\\${"))
    return f"'{escaped}'"


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_the_command_says_the_same(text: str, command: Command, toy_words: tuple[str, ...], tmp_path: Path) -> None:
    words = ("render", *toy_words, "cluster=slurm", "cluster.device=cpu")
    answer = command(*words, f"+cluster.sbatch.comment={quoted(text)}", f"+cluster.env.HOSTILE={quoted(text)}")
    if text in ("\t", "\x01", "\x7f"):
        refused(answer, 2, "cluster.env.HOSTILE=", "control character")
    else:
        assert (answer.code, answer.err) == (0, "")
        assert directives(answer.out)["comment"] == text
    assert list(tmp_path.iterdir()) == []


BREAKING = ("+cluster.env.A", "+cluster.sbatch.comment", "+cluster.srun.comment", "cluster.prelude", "name", "id", "runs_dir")
UNNAMEABLE = [(key, text) for key in ("name", "id", "cluster.partition") for text in ("a b", "a/b", "'; touch x; '", "%x")]


@pytest.mark.parametrize(("key", "text"), [*((key, "a\n#SBATCH --uid=0") for key in BREAKING), *UNNAMEABLE])
def test_what_no_script_may_hold_is_one_line_that_names_the_key(
    key: str, text: str, command: Command, toy_words: tuple[str, ...], tmp_path: Path
) -> None:
    refused(command("render", *toy_words, "cluster=slurm", "cluster.device=cpu", f"{key}={quoted(text)}"), 2, key.lstrip("+"))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what the nodes would be asked to do

DUMP = "import json, os, sys; print(json.dumps({'argv': sys.argv[1:], 'cwd': os.getcwd(), 'env': dict(os.environ)}))"
BODY = "\n# ---- The life of one attempt."
PRELUDE = "run=/no code=/no python=false limit=0 requeue=no; export SITE=read OMP_NUM_THREADS=99 PYTHONPATH=/site; false; echo $UNSET"


def _hostile_plan(root: Path, text: str) -> Plan:
    """A plan with `text` in every place that a user's directories and installation can put it."""
    run = root / "runs" / f"{text}x" / "id"
    (run / "attempts").mkdir(parents=True)
    (run / "code").mkdir()
    (run / "prelude").mkdir()
    (run / "prelude" / "x").write_text(PRELUDE)
    return dataclasses.replace(
        PLAN,
        run_dir=str(run),
        project=str(run / "code"),
        python=f"/venv/{text}x/python",
        directory=str(root / f"{text}x"),
        env=(("OURS", text),),
        world=World(2, 1, "cpu"),
        threads=4,
    )


def _options(text: str, plan: Plan) -> dict[str, Any]:
    """`text` in every field that carries it."""
    options: dict[str, Any] = {
        **CPU,
        "prelude": "x",
        "env": {"HOSTILE": text, "run": text, "PYTHONPATH": "/mine"},
        "srun": {"comment": text},
    }
    options["sbatch"] = {"comment": text}
    if not re.search('[,:"]', text) and text.strip() and not text.startswith("-"):
        options.update(container="apptainer", image=text, mounts=[f"{text}:/x"], container_python=f"{text}/python")
    return options


WORDS = [text for text in HOSTILE if "/" not in text and text not in ("\t", "\x01", "\x7f")]


@pytest.mark.parametrize("text", WORDS, ids=ascii)
def test_srun_is_asked_for_what_was_meant(text: str, tmp_path: Path) -> None:
    plan = _hostile_plan(tmp_path, text)
    options = _options(text, plan)
    script = Slurm(**options).render(plan)
    before = set(tmp_path.rglob("*"))
    stub = f'srun() {{ {sys.executable} -c {json.dumps(DUMP)} "$@"; }}\nhead=10.0.0.1 port=20001 SLURM_JOB_ID=7\nstep\n'
    test = "\n".join((script.partition(BODY)[0], stub))
    done = subprocess.run(["bash", "-c", test], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout.splitlines()[-1])
    boxed = "image" in options
    python = options["container_python"] if boxed else plan.python
    binds = [f"--bind={place}:{place}" for place in (plan.run_dir, plan.project, plan.directory)]
    container = ["apptainer", "exec", *binds, f"--bind={text}:/x", f"--pwd={plan.project}", text] if boxed else []
    node = [python, "-m", "launcher.node", plan.run_dir]
    torchrun = ["-m", "launcher.train.torchrun", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=0"]
    meeting = ["--rdzv-backend=sealed", "--rdzv-endpoint=10.0.0.1:20001", "--rdzv-id=7.000"]
    ours = ["--nodes=2", "--ntasks-per-node=1", "--export=ALL", "--kill-on-bad-exit=1", f"--comment={text}"]
    assert said["argv"] == [*ours, *container, *node, python, *torchrun, *meeting, "-m", "launcher.train.worker", plan.run_dir]
    assert said["cwd"] == plan.project
    assert (said["env"]["HOSTILE"], said["env"]["OURS"]) == (text, text)
    assert said["env"]["OMP_NUM_THREADS"] == "4"
    assert said["env"]["PYTHONPATH"] == f"{plan.project}:/mine"  # what the prelude sets does not take ours away
    assert said["env"]["SITE"] == "read"
    attempts = Path(plan.run_dir) / "attempts"
    assert set(tmp_path.rglob("*")) - before == {attempts / "000", attempts / "latest"}


@pytest.mark.parametrize("text", ["a,b", "a:b", 'a"b'])
@pytest.mark.parametrize("container", ["pyxis", "apptainer"])
def test_a_path_that_would_be_several_mounts_is_refused(container: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.container: .* holds a sign with a meaning in mounts"):
        Slurm(device="cpu", container=container, image="x").render(_hostile_plan(tmp_path, text))


@pytest.mark.parametrize("field", ["run_dir", "directory", "python", "project", "env"])
@pytest.mark.parametrize("text", ["/a\nb", "/a\rb", "/a\0b", "/a\udcff"])
def test_a_line_break_in_the_plan_is_refused(field: str, text: str) -> None:
    plan = dataclasses.replace(PLAN, **{field: (("NAME", text),) if field == "env" else text})
    with pytest.raises(ValueError, match=r"line break or a NUL|no text in UTF-8"):
        Slurm(device="cpu", container="pyxis" if field == "directory" else None, image="x" if field == "directory" else None).render(plan)


@pytest.mark.timeout(240)
def test_every_hostile_script_passes_bash_and_shellcheck(tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    for number, text in enumerate(WORDS):
        plan = _hostile_plan(tmp_path / str(number), text)
        script = Slurm(**_options(text, plan)).render(plan)
        if number:  # the body is the same in all: once is enough, and takes a tenth of the time
            script = script.partition(BODY)[0] + '\nhead=x port=1\nstep "$limit" "$requeue" "${strict:-}"\n'
        (folder / f"{number}.sh").write_text(script)
    paths = sorted(map(str, folder.iterdir()))
    # hints at what a quoted text could have meant: an expansion, a tilde, a quote, a comparison
    shellcheck = [str(Path(sys.executable).with_name("shellcheck")), "--exclude=SC2016,SC2088,SC1003,SC1097"]
    for argv in (*(["bash", "-n", path] for path in paths), [*shellcheck, *paths]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
