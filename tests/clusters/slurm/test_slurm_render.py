"""The batch scripts: reviewed as golden files in slurm/examples/, which `make goldens` rewrites."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from test_render import GOLDENS, PLAN

from launcher.clusters.slurm import Slurm
from launcher.clusters.slurm.script import array_script
from launcher.plan import SCRIPTED, Plan, World

RUN = "/home/ada/project/runs/cifar/20261121-081500-123"
GPU = Slurm(nodes=1, processes_per_node=8, cpus_per_process=12, partition="gpu", account="vision", gpu_type="h100")
MOUNTED: dict[str, Any] = {"image": "nvcr.io#nvidia/pytorch:26.04-py3", "mounts": ["/datasets:/datasets"], "nodes": 2}

CLUSTERS = {
    "slurm_one_node": GPU,
    "slurm_many_nodes": dataclasses.replace(
        GPU,
        nodes=16,
        time="1-12:30",
        qos="long",
        exclude="node[7-9]",
        memory="0",
        interface="hsn0",
        env={"NCCL_IB_HCA": "mlx5_0,mlx5_1"},
        sbatch={"mail-type": "END,FAIL", "mail-user": "ada@example.org", "exclusive": True},
        srun={"cpu-bind": "none"},
        max_restarts=1,
    ),
    "slurm_cpu": Slurm(nodes=2, processes_per_node=2, device="cpu", cpus_per_process=8, time="30:00"),
    "slurm_prelude": dataclasses.replace(GPU, prelude="slurm/site.sh", gpu_request="gres", doctor=True),
    "slurm_pyxis": dataclasses.replace(GPU, container="pyxis", **MOUNTED),
    "slurm_apptainer": dataclasses.replace(GPU, container="apptainer", **{**MOUNTED, "image": "/images/pytorch.sif"}),
}


def plan_of(cluster: Slurm) -> Plan:
    world = cluster.world()
    return dataclasses.replace(
        PLAN, world=world, threads=cluster.threads(world), max_restarts=cluster.max_restarts, run_dir=RUN, project=f"{RUN}/code"
    )


def rendered(name: str) -> str:
    if name == "slurm_array":
        cluster = dataclasses.replace(GPU, throttle=8)
        return array_script(cluster, plan_of(cluster), "cifar.sweep.0", "/home/ada/project/runs/.sweeps/sweep/arrays/0", 200)
    if name == "slurm_script":
        return CLUSTERS["slurm_cpu"].render(dataclasses.replace(plan_of(CLUSTERS["slurm_cpu"]), program=SCRIPTED))
    return CLUSTERS[name].render(plan_of(CLUSTERS[name]))


NAMES = (*CLUSTERS, "slurm_array", "slurm_script")


@pytest.mark.parametrize("name", NAMES)
def test_the_rendered_script_is_the_golden_one(name: str, request: pytest.FixtureRequest) -> None:
    golden = GOLDENS / f"{name}.sbatch"
    if request.config.getoption("--goldens"):
        golden.write_text(rendered(name), encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == rendered(name)


def test_every_golden_has_its_cluster() -> None:
    assert {path.stem for path in GOLDENS.glob("slurm_*.sbatch")} == set(NAMES)


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_number_that_stands_twice_is_the_same_number(name: str) -> None:
    script, cluster = rendered(name), CLUSTERS[name]
    assert set(re.findall(r"--nodes=(\d+)|--nnodes=(\d+)", script)) == {(str(cluster.nodes), ""), ("", str(cluster.nodes))}
    assert re.findall(r"--ntasks-per-node=(\d+)", script.split("nodes_answer")[0]) == ["1"] * (3 if cluster.doctor else 2)
    cpus = cluster.cpus_per_process * cluster.processes_per_node
    assert re.findall(r"--cpus-per-task=(\d+)|SRUN_CPUS_PER_TASK=(\d+)", script) == [(str(cpus), ""), ("", str(cpus))]
    gpus = re.findall(r"(?:gpus-per-node=|gres=gpu:)(?:h100:)?(\d+)", script)
    assert gpus == ([str(cluster.processes_per_node)] if cluster.device == "cuda" else [])


@pytest.mark.parametrize("name", CLUSTERS)
def test_what_a_job_script_must_and_must_not_say(name: str) -> None:
    script = rendered(name)
    lines = script.splitlines()
    assert "set -euo pipefail" in lines
    assert not re.search(r"^\s*set -\S*x", script, re.MULTILINE)
    assert "localhost" not in script
    assert "29500" not in script
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert directives == list(range(1, len(directives) + 1)), "sbatch stops reading directives at the first other line"


def test_a_world_is_what_the_options_say() -> None:
    assert Slurm(nodes=3, processes_per_node=4, device="cuda").world() == World(3, 4, "cuda")
