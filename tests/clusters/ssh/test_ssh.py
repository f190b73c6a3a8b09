"""`cluster=ssh` on machines with real sshds: it trains as one machine does, says which host is wrong and why, and leaves nothing behind."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Hosts, why_not
from processes import finish, toy_words

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.xdist_group("ssh"),
    pytest.mark.skipif(bool(why_not()), reason=f"no machines to ssh to: {why_not()}"),
]
BATCH = "train.batch_size=12"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums come out the same to the last bit only with as many threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with Hosts(tmp_path_factory.mktemp("machines"), 3) as made:
        yield made


def losses(run: Path) -> list[float]:
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["split"] == "train"]


def run_of(done: subprocess.CompletedProcess[str]) -> Path:
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def refusal(done: subprocess.CompletedProcess[str], code: int = 4) -> str:
    assert done.returncode == code, (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("launcher: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def until(is_so: Callable[[], Any], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def test_it_trains_as_one_machine_does(tmp_path: Path, hosts: Hosts) -> None:
    words = ["train.steps=25", BATCH, "train.log_every=1"]
    there = run_of(hosts.launcher(tmp_path, toy_words(tmp_path / "runs", "id=ssh", *words, "cluster.processes_per_node=1", *hosts.words())))
    assert hosts.left() == []
    here = run_of(finish(tmp_path, toy_words(tmp_path / "runs", "id=here", *words, "cluster.processes_per_node=3")))
    assert losses(there) == losses(here)
    assert len(losses(there)) == 25
    assert all(word in (there / "job.sh").read_text() for word in ("Rendered by", "--host gpu2 1", "launcher.clusters.ssh"))


def test_hosts_of_other_sizes_and_a_file_of_them(tmp_path: Path, hosts: Hosts) -> None:
    """An uneven world, from a file in the form that others have; the interpreter of one is elsewhere."""
    listed = tmp_path / "hosts.txt"
    listed.write_text("# ours\ngpu1 slots=2\n\ngpu2 slots=1  # a small one\n")
    python = tmp_path / "its own" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    words = ["train.steps=10", BATCH, "train.log_every=1", "cluster=ssh", f"cluster.hostfile={listed}", "cluster.device=cpu"]
    words += [f"cluster.ssh_config={hosts.config}", f"+cluster.python={{gpu2:'{python}'}}".replace("+", "")]
    there = run_of(hosts.launcher(tmp_path, toy_words(tmp_path / "runs", "id=ssh", *words)))
    assert json.loads((there / "plan.json").read_text())["world"]["uneven"] == [2, 1]
    here = run_of(finish(tmp_path, toy_words(tmp_path / "runs", "id=here", *words[:3], "cluster.processes_per_node=3")))
    assert losses(there) == losses(here)


def test_each_host_that_cannot_be_used_gets_its_reason(tmp_path: Path, hosts: Hosts) -> None:
    words = toy_words(tmp_path / "runs", "train.steps=5", BATCH, "cluster.processes_per_node=1", *hosts.words())
    other = tmp_path / "other" / "python"
    meta = tmp_path / "other" / "torch-9.9.dist-info"
    meta.mkdir(parents=True)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    other.write_text(f'#!/bin/sh\nexport PYTHONPATH="{other.parent}"\nexec "{sys.executable}" "$@"\n')
    other.chmod(0o755)
    began = time.monotonic()
    said = refusal(hosts.launcher(tmp_path, [*words, f"cluster.python={{gpu3:{other}}}"]))
    assert "1 of 3 hosts cannot be used: gpu3: it has torch 9.9, and gpu1 2." in said
    assert "resume" not in said
    said = refusal(hosts.launcher(tmp_path, [*words, "cluster.python={gpu2:/no/python}"]))
    assert re.search(r"gpu2: there is no Python at /no/python .*type cluster\.python=\{gpu2:", said)
    hosts.write_config(gpu2=["PubkeyAuthentication no"])
    said = refusal(hosts.launcher(tmp_path, words))
    assert "gpu2: it lets nobody in from here without a password; give it your key: ssh-copy-id gpu2" in said
    hosts.write_config()
    known = hosts.config.parent / "known_hosts"
    lines = known.read_text().splitlines()
    known.write_text("\n".join([lines[0], lines[1].replace(lines[1].split()[2], lines[0].split()[2]), lines[2]]) + "\n")
    said = refusal(hosts.launcher(tmp_path, words))
    assert "1 of 3 hosts cannot be used: gpu2: its host key is not the one that is known here" in said
    hosts.write_config()
    assert hosts.ssh("gpu3", "head -c 100m /dev/zero > $TMPDIR/fill").returncode
    said = refusal(hosts.launcher(tmp_path, words))
    assert re.search(r"gpu3: nothing can be written to \S+/gpu3/tmp there \(No space left on device\); make room", said)
    hosts.ssh("gpu3", "rm $TMPDIR/fill")
    hosts["gpu1"].cut()
    cut = time.monotonic()
    said = refusal(hosts.launcher(tmp_path, words))
    hosts["gpu1"].mend()
    assert re.search(r"gpu1: it (cannot be reached|has not answered)", said)
    assert time.monotonic() - cut < 20
    assert time.monotonic() - began < 120
    assert not [*(tmp_path / "runs").glob("*/*/checkpoints/step_*")]
    assert hosts.left() == []


@pytest.mark.full
@pytest.mark.parametrize(("names", "processes"), [(("gpu1", "gpu2", "gpu3"), 1), (("gpu1", "gpu2"), 2)])
def test_cifar_as_one_machine_trains_it(tmp_path: Path, hosts: Hosts, shared_data: Path, names: tuple[str, ...], processes: int) -> None:
    words = ["+exp=cifar", f"data.root={shared_data}", "train.steps=60", "train.batch_size=48", "train.log_every=1"]
    words += [f"runs_dir={tmp_path / 'runs'}"]
    there = run_of(hosts.launcher(tmp_path, [*words, "id=ssh", *hosts.words(*names), f"cluster.processes_per_node={processes}"], 300))
    here = run_of(finish(tmp_path, [*words, "id=here", f"cluster.processes_per_node={len(names) * processes}"], timeout=300))
    print(
        f"{len(names)} x {processes}: largest difference of {len(losses(here))} losses",
        max(map(abs, map(float.__sub__, losses(there), losses(here)))),
    )
    assert losses(there) == losses(here)
    assert len(losses(here)) == 60
    assert hosts.left() == []


@pytest.mark.full
def test_of_two_runs_one_has_the_devices(tmp_path: Path, hosts: Hosts) -> None:
    words = ["train.steps=3000", BATCH, "cluster.processes_per_node=1", *hosts.words("gpu1", "gpu2")]
    first = hosts.start(tmp_path, toy_words(tmp_path / "runs", "id=first", *words))
    try:
        until(lambda: [*(tmp_path / "runs/toy/first/attempts").glob("*/rank_1.log")])
        said = refusal(hosts.launcher(tmp_path, toy_words(tmp_path / "runs", "id=second", *words)))
        assert re.search(r"gpu1: its devices are taken by process \d+ of user 0; type cluster\.busy=wait", said)
        second = hosts.start(tmp_path, ["resume", str(tmp_path / "runs/toy/second"), "cluster.busy=wait"])
        try:
            time.sleep(4)
            assert not [*(tmp_path / "runs/toy/second/attempts").glob("*/rank_0.log")]
            third = hosts.start(tmp_path, toy_words(tmp_path / "runs", "id=third", *words, "cluster.busy=wait"))
            until(lambda: [*(tmp_path / "runs/toy/third/attempts").glob("*/nonce")])
            time.sleep(2)
            third.send_signal(signal.SIGINT)
            assert "stopped while it waited for devices" in third.communicate(timeout=30)[1]
            first.send_signal(signal.SIGINT)
            first.communicate(timeout=60)
            until(lambda: [*(tmp_path / "runs/toy/second/attempts").glob("*/rank_0.log")])
            second.send_signal(signal.SIGINT)
            assert "waiting for gpu1: its devices are taken" in second.communicate(timeout=60)[1]
        finally:
            second.kill()
            second.communicate()
    finally:
        first.kill()
        first.communicate()
    assert hosts.left(20) == []


ECHOES = """
import json, os, sys, time
told = [sys.argv[1:], os.uname().nodename, os.environ.get("TOKEN"), os.environ.get("TEXT")]
print("said", json.dumps(told), flush=True)
time.sleep(2)
"""


def test_words_of_a_user_arrive_as_they_are(tmp_path: Path, hosts: Hosts) -> None:
    """In a directory with a name that a shell would take apart."""
    home = tmp_path / 'it\'s $(touch x) "here"; é'
    home.mkdir()
    (home / "my script.py").write_text(ECHOES)
    odd = ["$(touch y)", "`id`", "a b", "'", '"', "-oProxyCommand=touch z", "é\u2028", "", "*", "\\", "!!", "%h"]
    words = ["script='my script.py'", "id=a", *hosts.words("gpu1", "gpu2"), "cluster.processes_per_node=1"]
    given = "[" + ",".join("'" + each.replace("\\", "\\\\").replace("'", "\\'") + "'" for each in odd) + "]"
    words += [f"script.args={given}", "+cluster.env.TOKEN='${oc.env:SECRET}'", "+cluster.env.TEXT='$(touch w) \"x\"'"]
    done = hosts.launcher(home, words, SECRET="s3cret' $x")
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    found = [json.loads((run / f"attempts/000/rank_{rank}.log").read_text().split("said ", 1)[1].splitlines()[0]) for rank in (0, 1)]
    assert [each[0] for each in found] == [odd, odd]
    assert {each[1] for each in found} == {"gpu1", "gpu2"}
    assert [each[2:] for each in found] == [["***", '$(touch w) "x"']] * 2, "what is secret is hidden in a log"
    assert not [path for path in home.rglob("*") if path.name in "xyzw"]
    assert not [path for path in run.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes() and "rank_" not in path.name]


@pytest.mark.parametrize("how", ["dies", pytest.param("is cut off", marks=pytest.mark.full)])
def test_a_host_that_is_lost_and_comes_back(tmp_path: Path, hosts: Hosts, how: str) -> None:
    words = ["train.steps=200", BATCH, "train.log_every=1", "train.save_every=20"]
    more = ["cluster.processes_per_node=1", "cluster.watch=6", *hosts.words("gpu1", "gpu3")]
    process = hosts.start(tmp_path, toy_words(tmp_path / "runs", "id=a", *words, *more))
    run = tmp_path / "runs" / "toy" / "a"
    try:
        until(lambda: [*run.glob("checkpoints/step_*")])
        victim = hosts["gpu3"]
        if how == "dies":
            victim.die()
            time.sleep(1)
            victim.boot()
        else:
            victim.cut()
            until(lambda: "requeued" in (run / "events.jsonl").read_text(), 60)
            assert hosts.left() == []  # the one that is cut off has ended its own by itself
            victim.mend()
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, (out, err)
    assert "host gpu3 was lost: " in err
    assert json.loads((run / "summary.json").read_text())["state"] == "done"
    whole = run_of(finish(tmp_path, toy_words(tmp_path / "runs", "id=whole", *words, "cluster.processes_per_node=2")))
    assert losses(run) == losses(whole)
    assert hosts.left() == []


def test_it_goes_on_without_a_host_where_it_may(tmp_path: Path, hosts: Hosts) -> None:
    words = ["train.steps=200", BATCH, "train.log_every=1", "train.save_every=20"]
    more = ["cluster.processes_per_node=1", "cluster.min_hosts=2", "cluster.patience=1", "cluster.watch=6", *hosts.words()]
    process = hosts.start(tmp_path, toy_words(tmp_path / "runs", "id=a", *words, *more))
    run = tmp_path / "runs" / "toy" / "a"
    try:
        until(lambda: [*run.glob("checkpoints/step_*")])
        hosts["gpu2"].die()
        out, err = process.communicate(timeout=200)
    finally:
        process.kill()
        process.communicate()
        hosts["gpu2"].boot()
        until(lambda: hosts.ssh("gpu2", "true").returncode == 0)
    assert process.returncode == 0, (out, err)
    assert "going on without: cluster.hosts=[{gpu1:1},{gpu3:1}]" in err
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["state"], summary["steps"]) == ("done", 200)
    assert len(losses(run)) == 200
    assert summary["samples"] == 200 * 12  # of each update as many as before
    assert hosts.left() == []


def test_one_that_is_detached_goes_on_by_itself_and_is_stopped_from_anywhere(tmp_path: Path, hosts: Hosts) -> None:
    words = ["id=a", "train.steps=4000", BATCH, "cluster.processes_per_node=1", "cluster.detach=true", *hosts.words("gpu1", "gpu2")]
    done = hosts.launcher(tmp_path, toy_words(tmp_path / "runs", *words))
    run = run_of(done)
    assert f"it goes on on gpu1; watch it with: python -m launcher logs {run} -f" in done.stdout
    until(lambda: [*run.glob("attempts/000/rank_1.log")])
    assert hosts.launcher(tmp_path, ["resume", str(run)]).returncode == 3, "there is a launcher at it"
    until(lambda: "step" in (run / "attempts/000/rank_0.log").read_text())
    assert hosts.launcher(tmp_path, ["status", str(run)]).stdout.count("running")
    assert hosts.launcher(tmp_path, ["cancel", str(run)]).returncode == 0
    until(lambda: (run / "summary.json").exists())
    assert json.loads((run / "summary.json").read_text())["state"] == "stopped"
    assert hosts.left(10) == []
    said = refusal(hosts.launcher(tmp_path, toy_words(tmp_path / "runs", *words[1:], "cluster.python={gpu2:/no/python}")))
    assert "on gpu1: 1 of 2 hosts cannot be used: gpu2: there is no Python at /no/python" in said
    assert hosts.left(10) == []


@pytest.mark.timeout(1500)
def test_nothing_is_left_after_an_end_of_any_kind(tmp_path: Path, hosts: Hosts, many: Callable[[int, int, int], int]) -> None:
    rng = random.Random(7)
    ends = ["launcher killed", "interrupted twice", "agent killed", "torchrun killed", "rank killed", "ssh killed", "supervisor killed"]
    for number in range(many(3, 20, 60)):
        how = ends[number % len(ends)] if number < len(ends) else rng.choice(ends)
        words = ["train.steps=2000", BATCH, "cluster.requeue=false", "cluster.processes_per_node=1", *hosts.words()]
        process = hosts.start(tmp_path, toy_words(tmp_path / "runs", f"id=r{number}", *words))
        try:
            place = tmp_path / "runs" / "toy" / f"r{number}" / "attempts"
            until(lambda process=process, place=place: process.poll() is not None or [*place.glob("*/rank_2.log")])
            assert process.poll() is None, process.communicate()
            time.sleep(rng.uniform(0, 3))
            _end(process, hosts, how)
            process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert hosts.left() == [], how


def _end(process: subprocess.Popen[str], hosts: Hosts, how: str) -> None:
    import psutil

    if how == "launcher killed":
        process.kill()
    elif how == "interrupted twice":
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    else:
        mark = {"agent killed": "clusters.ssh.agent", "torchrun killed": "launcher.train.torchrun", "rank killed": "launcher.train.worker"}
        mark |= {"ssh killed": "ssh -F", "supervisor killed": "launcher.clusters.ssh "}
        roots = [hosts["gpu2"].pid] if how not in ("ssh killed", "supervisor killed") else [process.pid]
        for root in roots:
            for each in psutil.Process(root).children(recursive=True):
                line = " ".join(each.cmdline())
                if mark[how] in line and "nsenter" not in line and (how != "rank killed" or " -m launcher.train.worker" in line):
                    each.kill()
                    return
        raise AssertionError(f"{how}: there is none")
