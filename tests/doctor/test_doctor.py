"""`doctor`: the real examination, here and on a real SLURM, of sound nodes and of nodes that are not. test_judge.py has the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from batch_jobs import Batch
from helpers import Answer, Launch, Started, run_dir
from processes import events, wait_for

from launcher.doctor.examine import health
from launcher.doctor.examine.checks import pattern
from launcher.doctor.examine.health import read_smi
from launcher.doctor.findings import DRILL, read_report
from launcher.rundir.rundir import RunDir


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_known_product_is_the_product_and_every_sum_on_the_way_is_exact(dtype: torch.dtype) -> None:
    side = 3 * 2**6
    a, b, expected = pattern(side, torch.int64, torch.device("cpu"))
    assert torch.equal(a @ b, expected)
    assert torch.equal(expected.to(dtype).long(), expected)
    assert (a.abs() @ b.abs()).max() * 6144 // side < 2**24
    narrow = pattern(side, dtype, torch.device("cpu"))
    assert torch.equal(narrow[0] @ narrow[1], narrow[2])


def test_the_known_product_is_exact_in_bfloat16_at_the_size_a_gpu_gets() -> None:
    third = 6144 // 3
    values = {r * c * size for r in (1, 3, 5, 7) for c in (1, 3, 5, 7) for size in (2 * third, -third)}
    assert all(torch.tensor(value, dtype=torch.bfloat16).item() == value for value in values)


def test_what_nvidia_smi_says() -> None:
    assert read_smi("0, 0x0000000000000001\n") == {"ecc": 0, "throttle": []}
    assert read_smi("[N/A], 0x00000000000000C0\n") == {"ecc": None, "throttle": ["hardware thermal", "power brake"]}
    with pytest.raises(ValueError, match="invalid literal"):
        read_smi("Field is not a valid field to query.")


def test_nvml_is_asked_for_the_gpu_that_torch_means(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid) or "handle",
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x41,
        nvmlDeviceGetTotalEccErrors=lambda handle, kind, since: 7,
        NVML_MEMORY_ERROR_TYPE_UNCORRECTED=1,
        NVML_VOLATILE_ECC=0,
        NVMLError=RuntimeError,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert health.examine("1-2-3") == {"by": "pynvml", "ecc": 7, "throttle": ["hardware thermal"]}
    assert asked == ["GPU-1-2-3"]


def test_without_nvml_and_nvidia_smi_nothing_is_examined_and_it_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = health.examine("1-2-3")
    assert found["by"] == ""
    assert "nvidia-smi" in found["why"]


def test_the_script_of_a_job_with_a_doctor_passes_shellcheck(
    command: Callable[..., Answer], toy_words: tuple[str, ...], tmp_path: Path
) -> None:
    shown = command("render", *toy_words, "cluster=slurm", "cluster.device=cpu", "cluster.doctor=true").out
    assert "-m launcher.doctor.examine" in shown
    script = tmp_path / "job.sh"
    script.write_text(shown)
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------- here


HERE = ("cluster.device=cpu", "cluster.processes_per_node=2")


def test_this_machine_is_fine_and_nothing_of_the_examination_is_left(launch: Launch, toy_words: tuple[str, ...]) -> None:
    done = launch("doctor", *toy_words, *HERE)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "verdict: all fine" in done.stdout
    run = RunDir(run_dir(done))
    assert run.path.parent.name == "doctor"
    found = read_report(run, 0)
    assert found is not None
    assert found["complete"]
    assert [rank["stage"] for rank in found["ranks"]] == ["end", "end"]
    assert [rank["matmul"]["wrong"] for rank in found["ranks"]] == [0, 0]
    assert list(run.attempt(0).glob(".*")) == []
    assert (run.read_summary() or {})["state"] == "done"
    assert not run.metrics.exists()


def test_a_processor_that_computes_wrong_is_found_and_named(launch: Launch, toy_words: tuple[str, ...]) -> None:
    done = launch("doctor", *toy_words, *HERE, env={DRILL: f"{os.uname().nodename}:matmul"})
    assert done.returncode == 4
    assert f"launcher: {os.uname().nodename}: matmul: device 0 computed 2 elements wrong" in done.stderr
    run = RunDir(run_dir(done))
    assert (run.attempt(0) / "bad_nodes").read_text() == f"{os.uname().nodename}\n"
    assert (run.read_summary() or {})["state"] == "failed"


def test_ctrl_c_leaves_no_process(start: Callable[..., Started], toy_words: tuple[str, ...], tmp_path: Path) -> None:
    process = start("doctor", *toy_words, *HERE)
    wait_for(lambda: list(tmp_path.glob("runs/doctor/*/attempts/000/doctor_rank_0.json")), 30, "the examination")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130


def test_the_first_file_is_written_before_torch_is_imported() -> None:
    code = "import sys, launcher.doctor.examine.__main__; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0


# ---------------------------------------------------------------- on a cluster


@pytest.mark.slurm
@pytest.mark.timeout(180)
def test_two_sound_nodes(batch: Batch) -> None:
    done = batch("doctor", *batch.words, "cluster.nodes=2", timeout=150)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "links         exact" in done.stdout
    assert "2 of 2 to the end" in done.stdout


@pytest.mark.slurm
@pytest.mark.timeout(180)
def test_a_bad_node_is_named(batch: Batch) -> None:
    done = batch("doctor", *batch.words, "cluster.nodes=3", env={DRILL: "node2:matmul"}, timeout=150)
    assert done.returncode == 4, done.stderr + done.stdout
    assert "launcher: node2: matmul" in done.stderr
    assert "cluster.exclude=node2" in done.stderr


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.timeout(240)
def test_a_node_that_hangs_is_named_by_the_others(batch: Batch) -> None:
    done = batch("doctor", *batch.words, "cluster.nodes=2", env={DRILL: "node2:hang"}, timeout=200)
    assert done.returncode == 4, done.stderr + done.stdout
    assert "launcher: node2: rank" in done.stderr
    assert "node1" not in done.stderr.split("launcher: node2")[1].split(";")[0]


@pytest.mark.slurm
@pytest.mark.timeout(180)
def test_a_job_goes_on_without_its_bad_node_and_trains_on_the_others(batch: Batch) -> None:
    run = batch.submit("cluster.nodes=2", "cluster.doctor=true", "train.batch_size=64", env={DRILL: "node1:matmul"})
    batch.finish(run, 150)
    log = (run / "job.log").read_text()
    assert (run / "attempts" / "000" / "bad_nodes").read_text() == "node1\n"
    assert "goes on without the bad nodes node1" in log
    assert [event["attempt"] for event in events(run, "requeued")] == [0]
    assert "node1" not in events(run, "attempt")[-1]["reason"]
    assert [event["attempt"] for event in events(run, "started")] == [1]


@pytest.mark.slurm
@pytest.mark.timeout(180)
def test_a_job_that_cannot_go_on_without_its_bad_node_ends_and_names_it(batch: Batch) -> None:
    run = batch.submit("cluster.nodes=3", "cluster.doctor=true", "train.batch_size=60", env={DRILL: "node3:matmul"})
    assert batch.wait_until_over(run, 150) == "FAILED"
    assert "the doctor names bad nodes: node3; without them there are too few" in (run / "job.log").read_text()
    assert events(run, "started") == []
