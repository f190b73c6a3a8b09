"""What a user may give SLURM, value by value: accepted ones arrive as they were meant, others are one line with exit code 2."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
from helpers import Answer, refused
from test_render import PLAN
from test_shell import HOSTILE

from launcher.clusters.slurm import Slurm
from launcher.clusters.slurm.options import OURS, OURS_OF_SBATCH, SBATCH, SRUN
from launcher.clusters.slurm.script import array_script
from launcher.clusters.slurm.script import directives as directives_of
from launcher.clusters.slurm.values import directive, limit_text, literal_path, passed_on, seconds_of
from launcher.errors import ConfigError
from launcher.plan import World

Command = Callable[..., Answer]
BREAKS = ("a\nb", "a\rb", "a\0b", "x\n#SBATCH --uid=0", "a\x0bb", "a\x1bb")
"""What would end a line, or is no text."""


def sbatch_reads(line: str) -> str:
    """The argument of a `#SBATCH` line as sbatch reads it (src/sbatch/opt.c, _get_argument)."""
    rest, found, quote = line.removeprefix("#SBATCH").lstrip(), "", ""
    while rest and (quote or not rest[0].isspace()):
        mark, rest = rest[0], rest[1:]
        if mark == "\\":
            found, rest = found + rest[:1], rest[1:]
        elif quote and mark == quote:
            quote = ""
        elif not quote and mark in "'\"":
            quote = mark
        else:
            found += mark
    assert not rest.strip(), f"more than one argument: {line}"
    return found


def directives(script: str) -> dict[str, str]:
    """The options that sbatch would take from a script: it reads the lines before the first command."""
    head = script.partition("\nset -euo pipefail\n")[0].split("\n")
    assert all(line.startswith("#") for line in head)
    words = [sbatch_reads(line) for line in head if line.startswith("#SBATCH")]
    assert script.count("#SBATCH ") == len(words)  # none behind the first command, which would only look like one
    found = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    assert len(found) == len(words)
    return found


# ---------------------------------------------------------------- time

MINUTE, HOUR, DAY = 60, 3600, 86_400
TIMES = {
    "30": 30 * MINUTE,
    "1440": DAY,
    "2:30": 150,
    "1:00": MINUTE,
    "90:00": 90 * MINUTE,
    "4:00:00": 4 * HOUR,
    "00:10:00": 10 * MINUTE,
    "100:00:00": 100 * HOUR,
    "2-0": 2 * DAY,
    "0-1": HOUR,
    "1-12:30": DAY + 12 * HOUR + 30 * MINUTE,
    "1-00:00:00": DAY,
    "366-0": 366 * DAY,
}
NO_TIMES = {
    **dict.fromkeys(
        ("1h", "1:2:3:4", "-1", "", " ", "4 h", "4:00:00 ", "1-", "-", "1-2-3", "1:2:", ":30", "UNLIMITED", "٢:٣٠"), "no time limit"
    ),
    **dict.fromkeys(("9" * 5000 + ":00", "1" * 41), "no time limit"),
    **dict.fromkeys((0, 10, 150, -1, 14400), "is no text; put it in quotes"),
    **dict.fromkeys(("0:00", "0:59", "0-0", "0:00:00"), "less than a minute"),
    **dict.fromkeys(("367-0", "99999:00:00"), "more than a year"),
}


@pytest.mark.parametrize("text", TIMES)
def test_a_time_limit_means_what_sbatch_means_by_it(text: str) -> None:
    assert seconds_of(text) == TIMES[text]
    assert seconds_of(limit_text(TIMES[text])) == TIMES[text]
    assert re.fullmatch(r"\d+-\d\d:\d\d:\d\d", limit_text(TIMES[text]))


@pytest.mark.parametrize("value", NO_TIMES, ids=lambda value: repr(value)[:20])
def test_a_time_limit_that_cannot_be_meant_is_refused_with_the_reason(value: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(NO_TIMES[value])):
        seconds_of(value)


# ---------------------------------------------------------------- directives and options


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_directive_is_read_back_as_it_was_or_refused(text: str) -> None:
    if text in ("\t", "\x01", "\x7f"):
        with pytest.raises(ConfigError, match=r"cluster\.sbatch\.comment=.* control character"):
            directive("comment", text)
    else:
        assert sbatch_reads(directive("comment", text)) == f"--comment={text}"


@pytest.mark.parametrize("text", [*BREAKS, "a\udcffb", "x" * 4001], ids=lambda text: ascii(text)[:20])
@pytest.mark.parametrize("way", [lambda text: directive("comment", text), lambda text: passed_on("srun", {"comment": text}, [])])
def test_what_is_no_text_of_one_line_is_no_option(way: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ConfigError, match=r"^cluster\.(sbatch|srun)\.comment="):
        way(text)


@pytest.mark.parametrize(
    ("directory", "path"),
    [("/a b/'c", "log"), ("/a%x", "/a%x/\\log"), ("/a\\b", "/a\\\\b/\\log"), ("/%j/a\\%b", "/%j/a\\\\%b/\\log")],
)
def test_no_directory_is_a_pattern(directory: str, path: str) -> None:
    assert literal_path(directory, "log") == path
    assert directives(Slurm().render(dataclasses.replace(PLAN, run_dir=directory)))["output"] == path.replace("log", "job.log")
    array = array_script(Slurm(), PLAN, "sweep", directory, 2).split("\n")
    assert f"--output={'%a.log' if path == 'log' else path.replace('log', 'all.log')}" in map(sbatch_reads, array[1:12])


PASSED = (
    ({"hold": True}, {"hold": True}),
    ({"hold": False, "nice": None}, {}),
    ({"nice": 100, "priority": 0}, {"nice": 100, "priority": 0}),
    ({"mail_type": "END,FAIL", "begin": "now+1hour"}, {"mail-type": "END,FAIL", "begin": "now+1hour"}),
    ({"exclusive": "user", "comment": ""}, {"exclusive": "user", "comment": ""}),
    ({"lua-color": "red", "lua_size": 3}, {"lua-color": "red", "lua-size": 3}),
)


@pytest.mark.parametrize(("given", "found"), PASSED)
def test_an_option_is_passed_on(given: dict[str, Any], found: dict[str, Any]) -> None:
    assert passed_on("sbatch", given, ["lua-color", "lua_size"]) == found
    lines = directives_of(Slurm(sbatch=given, site_options=["lua-color", "lua_size"]), PLAN)
    for name, value in found.items():
        assert [line for line in lines if re.match(rf"#SBATCH --{name}\b", line)] == [directive(name, value)]


NOT_PASSED = (
    ("sbatch", {"hol": True}, "sbatch has no option --hol; did you mean cluster.sbatch.hold?"),
    ("sbatch", {"reservatio": 1}, "did you mean cluster.sbatch.reservation?"),
    ("sbatch", {"xyzzy": 1}, "sbatch has no option --xyzzy; see `man sbatch`"),
    ("sbatch", {"mpi": "pmix"}, "sbatch has no option --mpi"),
    ("srun", {"mpii": "pmix"}, "srun has no option --mpii; did you mean cluster.srun.mpi?"),
    ("srun", {"begin now": 1}, "srun has no option --begin now"),
    ("sbatch", {"": 1}, "sbatch has no option --"),
    ("sbatch", {"licenses": ["a", "b"]}, "cluster.sbatch.licenses is a list; type one value, with commas"),
    ("sbatch", {"licenses": {"a": 1}}, "cluster.sbatch.licenses is a list"),
    ("sbatch", {"mail-type": "END", "mail_type": "FAIL"}, "cluster.sbatch.mail_type is there twice"),
    ("sbatch", 5, "cluster.sbatch=5 cannot be; type name and value"),
    ("srun", ["mpi=pmix"], "cluster.srun=['mpi=pmix'] cannot be"),
)


@pytest.mark.parametrize(("command", "given", "part"), NOT_PASSED, ids=lambda value: str(value)[:20])
def test_an_option_that_cannot_be_passed_on_names_what_to_type(command: str, given: Any, part: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)):
        passed_on(command, given, [])


@pytest.mark.parametrize("name", OURS)
def test_an_option_that_is_ours_says_what_to_type(name: str) -> None:
    for key in (name, name.replace("-", "_")):
        with pytest.raises(ConfigError, match=rf"cluster\.sbatch\.{key}: the launcher sets --{name} itself; type "):
            passed_on("sbatch", {key: 1}, [name])
        if name not in OURS_OF_SBATCH:
            with pytest.raises(ConfigError, match="itself; type"):
                passed_on("srun", {key: 1}, [name])
    assert OURS_OF_SBATCH <= SRUN - SBATCH


@pytest.mark.parametrize("name", ["x\n#SBATCH --uid=0", "a b", "a;b", "-x", 'a"b', "a=b"])
def test_a_site_option_has_a_plain_name(name: str) -> None:
    for command in ("sbatch", "srun"):
        with pytest.raises(ConfigError, match=f"cluster.{command}"):
            passed_on(command, {name: True}, [name])


# ---------------------------------------------------------------- every option of Slurm

VALUES = """\
cluster.nodes=0                     cluster.nodes=0 cannot be; type auto or a whole number from 1
cluster.nodes=-1                    cluster.nodes=-1 cannot be
cluster.nodes=two                   cluster.nodes=two cannot be; type auto or a whole number from 1
cluster.nodes=true                  cluster.nodes=true cannot be; type auto or a whole number from 1
cluster.processes_per_node=0        cluster.processes_per_node=0 cannot be; type a whole number from 1
cluster.processes_per_node=auto     cluster.processes_per_node='auto' is not of type int
cluster.cpus_per_process=0          cluster.cpus_per_process=0 cannot be
cluster.max_restarts=-1             cluster.max_restarts=-1 cannot be; type a whole number from 0
cluster.throttle=0                  cluster.throttle=0 cannot be; type a whole number from 1
cluster.device=auto                 cluster.device=auto cannot be on a cluster one does not see from here; type cuda, xpu or cpu
cluster.device=gpu                  cluster.device=gpu cannot be
cluster.time=1h                     cluster.time='1h' is no time limit; type HH:MM:SS or D-HH:MM
cluster.time=1:2:3:4                cluster.time='1:2:3:4' is no time limit
cluster.time=-1                     cluster.time='-1' is no time limit
cluster.time=                       cluster.time='' is no time limit
cluster.time=0                      cluster.time='0:00' is less than a minute
cluster.time=0:00                   cluster.time='0:00' is less than a minute
cluster.time=null                   cluster.time=null is not of type
cluster.warning=0                   cluster.warning=0 cannot be; type auto or a whole number of seconds from 1
cluster.warning=soon                cluster.warning=soon cannot be; type auto
cluster.warning=14400               cluster.warning=14400 is not before the limit cluster.time=4:00:00; type auto
cluster.warning=65536 cluster.time=2-0  cluster.warning=65536 is more than SLURM can count; type at most 65535
cluster.partition=                  cluster.partition='' cannot be; type one word
cluster.partition='a b'             cluster.partition='a b' cannot be
cluster.partition='a,'              cluster.partition='a,' cannot be; type one word of letters, digits and _.:+@-, or several with commas
cluster.account='a;b'               cluster.account='a;b' cannot be; type one word
cluster.qos='-x'                    cluster.qos='-x' cannot be
cluster.gpu_type='h 100'            cluster.gpu_type='h 100' cannot be
cluster.interface='ib 0'            cluster.interface='ib 0' cannot be
cluster.constraint='a b'            cluster.constraint='a b' cannot be; type names
cluster.exclude='node[1-3] x'       cluster.exclude='node[1-3] x' cannot be; type names
cluster.memory=64                   cluster.memory='64' cannot be; type a number and its unit, such as 64G, or 0
cluster.memory=64GB                 cluster.memory='64GB' cannot be
cluster.memory=-1                   cluster.memory='-1' cannot be
cluster.gpu_request=gpu             cluster.gpu_request=gpu cannot be; type gpus-per-node or gres
cluster.gpu_request=gres +cluster.sbatch.gres=x:1  cluster.sbatch.gres would take the place of the GPUs; type cluster.gpu_request=
cluster.requeue=maybe               cluster.requeue='maybe' is not of type bool
cluster.doctor=maybe                cluster.doctor='maybe' is not of type bool
cluster.shared_filesystem=maybe     cluster.shared_filesystem='maybe' is not of type bool
cluster.container=docker            cluster.container=docker cannot be; type pyxis, apptainer or null
cluster.container=pyxis             cluster.container and cluster.image go together
cluster.image=x.sif                 cluster.container and cluster.image go together
cluster.container=apptainer cluster.image='-n'  cluster.image='-n' cannot be; type a name or a path
cluster.container_python=           cluster.container_python='' cannot be; type a name or a path
cluster.mounts=x                    cluster.mounts='x' cannot be; type a list
cluster.mounts=[1]                  cluster.mounts: '1' cannot be; type host:container
cluster.mounts=['a,b:c']            cluster.mounts: 'a,b:c' holds a comma
cluster.mounts=[a]                  cluster.mounts: 'a' cannot be; type host:container
cluster.site_options=x              cluster.site_options='x' cannot be; type a list
cluster.env=5                       cluster.env=5 cannot be; type name and value
cluster.env.A=1                     cluster.env.A: no such key; to add it there, type +cluster.env.A=
+cluster.env.A-B=1                  cluster.env.A-B: 'A-B' cannot name a variable
+cluster.env.A=[1,2]                cluster.env.A=[1, 2] cannot be; type one text
+cluster.env.OMP_NUM_THREADS=3      cluster.env.OMP_NUM_THREADS: the launcher sets it itself; type cluster.cpus_per_process=
+cluster.env.WORLD_SIZE=3           cluster.env.WORLD_SIZE: the launcher sets it itself; type cluster.processes_per_node=
+cluster.env.PET_NNODES=1           cluster.env.PET_NNODES: the launcher sets it itself; type nothing
+cluster.env.UID=3                  cluster.env.UID belongs to the shell
cluster.sbatch.hold=true            cluster.sbatch.hold: no such key; to add it there, type +cluster.sbatch.hold=
+cluster.sbatch.hol=true            cluster.sbatch.hol: sbatch has no option --hol; did you mean cluster.sbatch.hold?
+cluster.sbatch.mem=64G             cluster.sbatch.mem: the launcher sets --mem itself; type cluster.memory=
+cluster.srun.ntasks=3              cluster.srun.ntasks: the launcher sets --ntasks itself; type cluster.processes_per_node=
cluster.nodez=2                     cluster.nodez: no such key; did you mean cluster.nodes?"""


@pytest.mark.parametrize("row", VALUES.splitlines(), ids=lambda row: re.split("  +", row)[0])
def test_a_value_that_cannot_be_meant(row: str, command: Command, toy_words: tuple[str, ...]) -> None:
    words, part = re.split("  +", row, maxsplit=1)
    device = () if "cluster.gpu_request=gres" in words else ("cluster.device=cpu",)
    refused(command("render", *toy_words, "cluster=slurm", *device, *words.split(" ", words.count("=") - 1)), 2, part)


ACCEPTED = (
    (("cluster.memory=0",), {"mem": "0"}),
    (("cluster.memory=64G", "cluster.time=1-12:30"), {"mem": "64G", "time": "1-12:30:00"}),
    (("cluster.account=12345", "cluster.partition='a,b'"), {"account": "12345", "partition": "a,b"}),
    (("cluster.constraint='[(a|b)&c*2]'", "cluster.exclude='n[1-3],m7'"), {"constraint": "[(a|b)&c*2]", "exclude": "n[1-3],m7"}),
    (("+cluster.sbatch.hold=true", "+cluster.sbatch.nice=false", "+cluster.sbatch.comment='a b'"), {"hold": "", "comment": "a b"}),
    (("cluster.gpu_type=h100", "cluster.device=cuda", "cluster.processes_per_node=8"), {"gpus-per-node": "h100:8"}),
    (("cluster.gpu_request=gres", "cluster.device=cuda"), {"gres": "gpu:1"}),
    (("cluster.requeue=false", "cluster.warning=90"), {"no-requeue": "", "signal": "B:USR2@90"}),
)


@pytest.mark.parametrize(("words", "found"), ACCEPTED, ids=lambda value: str(value)[:30])
def test_a_value_arrives_in_the_script(words: tuple[str, ...], found: dict[str, str], command: Command, toy_words: tuple[str, ...]) -> None:
    answer = command("render", *toy_words, "cluster=slurm", "cluster.device=cpu", *words)
    assert (answer.code, answer.err) == (0, "")
    read = directives(answer.out)
    assert {key: read.get(key) for key in found} == found
    assert "nice" not in read


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("processes", [1, 8])
@pytest.mark.parametrize(("time", "warning"), [("2:30", "auto"), ("1-12:30", "auto"), ("4:00:00", 77)])
def test_no_number_is_written_twice_and_differently(nodes: int, processes: int, time: str, warning: Any) -> None:
    cluster = Slurm(nodes, processes, "cuda", cpus_per_process=3, time=time, warning=warning)
    script = cluster.render(dataclasses.replace(PLAN, world=World(nodes, processes, "cuda"), threads=3))
    head = directives(script)
    rest = script.partition("\nset -euo pipefail\n")[2]

    def numbers(pattern: str) -> set[int]:
        return {int(number) for number in re.findall(pattern, rest)}

    assert {int(head["nodes"])} == numbers(r"--nodes=(\d+)") == numbers(r"--nnodes=(\d+)") == {nodes}
    assert {int(head["ntasks-per-node"])} == numbers(r"--ntasks-per-node=(\d+)") == {1}
    assert {int(head["cpus-per-task"])} == numbers(r"SRUN_CPUS_PER_TASK=(\d+)") == {3 * processes}
    assert {int(head["gpus-per-node"])} == numbers(r"--nproc-per-node=(\d+)") == {processes}
    assert numbers(r"OMP_NUM_THREADS=(\d+)") == {3}
    assert {seconds_of(head["time"])} == numbers(r"(?m)^limit=(\d+)") == {seconds_of(time)}
    assert int(head["signal"].removeprefix("B:USR2@")) < seconds_of(time)
