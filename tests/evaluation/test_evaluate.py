"""`evaluate` through the real launcher: its figures are the run's own, on many processes and as a job; what cannot be is one line."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from batch_jobs import Batch
from fake_slurm import FakeSlurm
from helpers import PROJECT, TOY, Command, environment_in, refused
from PIL import Image
from processes import finish, wait_for
from small_runs import SPLIT, SmallRuns
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launcher.errors import RunError
from launcher.evaluation import written
from launcher.rundir.rundir import RunDir


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, dict[str, str]]:
    """A toy run that is done, and the environment it ran in."""
    home = tmp_path_factory.mktemp("done")
    env = environment_in(home, cache)
    words = [*TOY, f"runs_dir={home / 'runs'}", "id=a", "cluster.processes_per_node=2", "train.epochs=2"]
    made = subprocess.run(
        [sys.executable, "-m", "launcher", *words], cwd=home, env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert made.returncode == 0, made.stderr
    return home / "runs" / "toy" / "a", env


def evaluated(run: Path, env: dict[str, str], *words: str, prefix: str = "") -> subprocess.CompletedProcess[str]:
    command = shlex.join([sys.executable, "-m", "launcher", "evaluate", str(run), *words])
    shell = ["bash", "-c", f"{prefix} exec {command}"]
    return subprocess.run(shell, cwd=run.parents[2], env=env, capture_output=True, text=True, timeout=100, check=False)


def figures(run: Path, split: str = "test") -> dict[str, Any]:
    return json.loads((run / "evaluation" / split / written.REPORT).read_text())


def rows(run: Path, split: str = "test") -> Any:
    return pq.read_table(run / "evaluation" / split / written.PREDICTIONS)


def others(run: Path) -> dict[str, bytes]:
    """All that lies in the run beside its evaluations."""
    files = [path for path in run.rglob("*") if path.is_file() and "evaluation" not in path.parts]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_the_figures_are_those_of_the_run_and_one_process_finds_what_two_find(done: tuple[Path, dict[str, str]]) -> None:
    run, env = done
    before, summary = others(run), json.loads((run / "summary.json").read_text())
    two = evaluated(run, env, "cluster.processes_per_node=2")
    assert two.returncode == 0, two.stderr
    assert two.stdout.splitlines()[-1] == str(run / "evaluation" / "test" / written.PAGE)
    first, found = figures(run), rows(run)
    for name in ("accuracy", "loss"):
        assert first["metrics"][name]["value"] == summary[f"test_{name}"]
        assert first["metrics"][name]["low"] <= first["metrics"][name]["value"] <= first["metrics"][name]["high"]
    assert (first["samples"], first["step"], first["weights"]) == (101, summary["steps"], "average")
    assert found.column_names == ["sample", "label", "predicted", "confidence", "loss", "scores"]
    assert found["sample"].to_pylist() == [*range(101)]
    scores = np.array(found["scores"].to_pylist())
    assert scores.shape == (101, 4)
    assert np.allclose(scores.sum(1), 1, atol=1e-5)
    assert (scores.argmax(1) == found["predicted"].to_numpy()).all()
    assert np.mean(found["label"].to_numpy() == found["predicted"].to_numpy()) == pytest.approx(summary["test_accuracy"])
    assert found.schema.metadata[b"run"] == b"toy/a"
    (run / "evaluation" / "test" / "of_before.png").write_text("x")

    one = evaluated(run, env, "cluster.processes_per_node=1")
    assert one.returncode == 0, one.stderr
    second, again = figures(run), rows(run)
    assert second["fingerprint"] == first["fingerprint"]
    assert again["predicted"].equals(found["predicted"])
    assert again["label"].equals(found["label"])
    assert np.allclose(again["loss"].to_numpy(), found["loss"].to_numpy(), atol=1e-5)
    assert second["metrics"]["accuracy"] == pytest.approx(first["metrics"]["accuracy"])
    assert not (run / "evaluation" / "test" / "of_before.png").exists()
    assert sorted(path.name for path in (run / "evaluation").iterdir()) == ["test"]

    charts = EventAccumulator(str(run / "tb" / "evaluation" / "test"), size_guidance={"images": 0})
    charts.Reload()
    assert charts.Scalars("test/ece_low")[0].value < charts.Scalars("test/ece_high")[0].value
    assert len(charts.Scalars("test/accuracy")) == 2, "as the run shows it, and with its interval"
    assert "test/reliability" in charts.Tags()["images"]
    pictures = {tag: charts.Images(tag) for tag in charts.Tags()["images"]}
    assert {tag: len(each) for tag, each in pictures.items()} == dict.fromkeys(pictures, 1), "of two by one tag TensorBoard shows one"
    confusion = Image.open(io.BytesIO(pictures["test/confusion"][0].encoded_image_string))
    with Image.open(run / "evaluation" / "test" / "confusion.png") as named:
        assert confusion.width - named.width == 2, "the one with names and counts, as wide as its card"
    after = {name: data for name, data in others(run).items() if not name.startswith("tb/evaluation")}
    assert after == before


@pytest.mark.slow
def test_another_split_and_step_lie_beside_it_and_other_data_are_taken(done: tuple[Path, dict[str, str]]) -> None:
    run, env = done
    step = json.loads((run / "summary.json").read_text())["steps"]
    val = evaluated(run, env, "split=val", f"checkpoint={step}", "+data.noise=3.0")
    assert val.returncode == 0, val.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert figures(run, "val")["metrics"]["accuracy"]["value"] < summary["val_accuracy"]


@pytest.mark.slow
def test_where_there_is_no_space_nothing_is_half_written(done: tuple[Path, dict[str, str]]) -> None:
    run, env = done
    place = run / "evaluation" / "test"
    before = place.stat().st_ino if place.exists() else None
    full = evaluated(run, env, prefix="ulimit -f 9;")
    assert full.returncode == 3, full.stderr
    lines = [line for line in full.stderr.splitlines() if line.startswith("launcher: ")]
    assert len(lines) == 1
    assert "cannot be written (File too large); make room" in lines[0]
    assert "Traceback" not in full.stderr
    assert (place.stat().st_ino if place.exists() else None) == before
    assert [*(run / "evaluation").glob("tmp.*")] == []


def test_code_that_is_gone_is_one_line(done: tuple[Path, dict[str, str]]) -> None:
    run, env = done
    gone = os.pathsep.join(path for path in env["PYTHONPATH"].split(os.pathsep) if path != str(PROJECT))
    before = [*run.rglob("*")]
    answer = evaluated(run, {**env, "PYTHONPATH": gone})
    assert answer.returncode == 2
    assert "toyproject" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert [*run.rglob("*")] == before


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_nothing_that_was_begun(done: tuple[Path, dict[str, str]], no_process_left: None) -> None:
    run, env = done
    before = {path.name for path in (run / "evaluation" / "jobs").glob("*")}
    known = {*(run / "evaluation" / "jobs").glob("*/attempts/000/rank_0.log")}
    words = [sys.executable, "-m", "launcher", "evaluate", str(run)]
    process = subprocess.Popen(words, cwd=run.parents[2], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: {*(run / "evaluation" / "jobs").glob("*/attempts/000/rank_0.log")} - known, 30, "its process")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "stopped; nothing was written" in said
    assert {path.name for path in (run / "evaluation" / "jobs").glob("*")} == before
    assert [*(run / "evaluation").glob("tmp.*")] == []


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_and_nothing_is_set_aside(done: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    run, env = done
    copy = tmp_path / "runs" / "toy" / "b"
    shutil.copytree(run, copy)
    (newest,) = sorted((copy / "checkpoints").glob("step_*"))[-1:]
    for name in ("model.safetensors",):
        data = bytearray((newest / name).read_bytes())
        data[-1] ^= 1
        (newest / name).write_bytes(bytes(data))
    names = sorted(path.name for path in (copy / "checkpoints").iterdir())
    answer = evaluated(copy, env)
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == names
    if len(names) == 1:
        assert answer.returncode == 3
        assert "does not have the sha256" in answer.stderr
    else:
        assert answer.returncode == 0, answer.stderr
        assert "is damaged and passed over" in answer.stdout


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        ((), 2, ("evaluate takes one run", "evaluate cifar")),
        (("split=val",), 2, ("evaluate takes one run",)),
        (("nobody",), 2, ("nobody: no such run",)),
        (("{run}", "split=tset"), 2, ("split=tset", "train, val, test")),
        (("{run}", "checkpoint=last"), 2, ("checkpoint=last: type newest, best")),
        (("{run}", "robustness=yes"), 2, ("robustness=yes: type true or false",)),
        (("{run}", "optim.lr=1"), 2, ("evaluate optim.lr=1", "all else is the run's")),
        (("{run}",), 3, ("is not done (stopped)", "type checkpoint=newest")),
        (("{run}", "checkpoint=newest"), 3, ("has no checkpoint",)),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(tmp_path: Path, command: Command, words: tuple[str, ...], code: int, parts: Any) -> None:
    from made_runs import Made

    run = Made(tmp_path, batch=False).run
    run.summary.write_text(json.dumps({"state": "stopped"}))
    refused(command("evaluate", *(word.format(run=run.path) for word in words)), code, *([parts] if isinstance(parts, str) else parts))
    assert not (run.path / "evaluation").exists()


def test_what_fails_while_it_is_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evaluation" / "test").mkdir(parents=True)
    (tmp_path / "evaluation" / "test" / "a").write_text("before")
    (tmp_path / "evaluation" / "tmp.test.killed").mkdir()
    aside = written.Aside(RunDir(tmp_path), "test", "now")
    assert not (tmp_path / "evaluation" / "tmp.test.killed").exists()
    aside.write("a", b"after")
    monkeypatch.setattr(written.writing, "sync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\); make room"):
        aside.write("b", b"x")
    aside.drop()
    assert [path.name for path in (tmp_path / "evaluation").iterdir()] == ["test"]
    assert (tmp_path / "evaluation" / "test" / "a").read_text() == "before"


# ---------------------------------------------------------------- of other tasks


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_detector_a_language_model_and_numbers_have_figures_and_pages_of_their_own(small_runs: SmallRuns) -> None:
    wanted = {"detection": ("map50", "ap50"), "shakespeare": ("perplexity", "tokens"), "regression": ("rmse", "found")}
    for exp, (metric, column) in wanted.items():
        run, split = small_runs.evaluated(exp), SPLIT[exp]
        found, summary = figures(run, split), json.loads((run / "summary.json").read_text())
        assert found["metrics"][metric]["value"] == pytest.approx(summary[f"{split}_{metric}"], rel=1e-5, abs=1e-6)
        table = rows(run, split)
        assert {"sample", "loss", column} <= {*table.column_names}
        assert len(table) == found["samples"]
        page = (run / "evaluation" / split / written.PAGE).read_text()
        assert "<svg role=" in page
        assert ("Hardest sequences" in page) == (exp == "shakespeare")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cifar_is_evaluated_by_the_command_of_the_readme_to_its_own_figures(tmp_path: Path, shared_data: Path) -> None:
    words = ["+exp=cifar", f"data.root={shared_data}", "train.steps=12", "model=resnet8", "model.width=8"]
    made = finish(tmp_path, words, timeout=200)
    assert made.returncode == 0, made.stderr
    run = Path(made.stdout.splitlines()[-1])
    answer = finish(tmp_path, ["evaluate", "cifar"], timeout=200)
    assert answer.returncode == 0, answer.stderr
    found, summary = figures(run), json.loads((run / "summary.json").read_text())
    assert [found["metrics"][name]["value"] for name in ("accuracy", "loss")] == [summary["test_accuracy"], summary["test_loss"]]
    assert {path.name for path in (run / "evaluation" / "test").glob("*.png")} >= {"worst_mistakes.png", "confusion.png", "reliability.png"}
    assert (run / "evaluation" / "test" / written.PAGE).read_text().count("<figure>") == 48


@pytest.mark.slow
def test_pictures_are_shaken_where_it_is_asked_for_and_numbers_are_not(small_runs: SmallRuns) -> None:
    run = small_runs.evaluated("digits")
    found = figures(run)
    robust = found["robustness"]
    assert robust["clean"] == found["metrics"]["accuracy"]["value"]
    assert {"fgsm", "pgd"} < {row["kind"] for row in robust["rows"]}
    page = (run / "evaluation" / "test" / written.PAGE).read_text()
    assert "Accuracy under attack" in page
    assert "Under corruptions" in page


# ---------------------------------------------------------------- as a job


def test_a_job_is_submitted_with_the_code_and_says_where_the_page_will_be(
    done: tuple[Path, dict[str, str]], tmp_path: Path, command: Command, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "toy" / "b"
    shutil.copytree(done[0], run)
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    monkeypatch.setenv("XDG_STATE_HOME", done[1]["XDG_STATE_HOME"])  # there its package was trusted
    words = ("cluster=slurm", "cluster.device=cpu", "cluster.shared_filesystem=true", "cluster.processes_per_node=2")
    answer = command("evaluate", str(run), *words)
    assert answer.code == 0, answer.err
    (job,) = (run / "evaluation" / "jobs").iterdir()
    script = (job / "job.sh").read_text()
    assert " launcher.evaluation " in script
    assert "launcher.train.worker" not in script
    assert (job / "code" / "launcher" / "evaluation" / "work.py").is_file()
    assert json.loads((job / "asked.json").read_text())["run"] == str(run)
    assert f"page    in {run / 'evaluation'}, once it is done" in answer.out
    assert len(fake.submitted) == 1


@pytest.mark.slurm
@pytest.mark.timeout(240)
def test_a_job_of_two_nodes_finds_what_one_process_finds(batch: Batch, done: tuple[Path, dict[str, str]]) -> None:
    run = batch.home / "runs" / "toy" / "b"
    shutil.copytree(done[0], run)
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    trusts = {"XDG_STATE_HOME": done[1]["XDG_STATE_HOME"]}
    answer = batch("evaluate", str(run), *(word for word in batch.words if word.startswith("cluster")), "cluster.nodes=2", env=trusts)
    assert answer.returncode == 0, answer.stderr
    (job,) = (run / "evaluation" / "jobs").iterdir()
    batch.wait_until_over(job, 200)
    wait_for((run / "evaluation" / "test" / written.PAGE).exists, 20, "the page")
    summary = json.loads((run / "summary.json").read_text())
    assert figures(run)["metrics"]["accuracy"]["value"] == summary["test_accuracy"]
    assert (RunDir(job).read_summary() or {})["state"] == "done"
