"""`compare RUN RUN…`: what differs, what each came to, and whether that differs where both came to it on the same samples."""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import Command, refused
from made_runs import Made
from PIL import Image

from launcher.plan import World
from launcher.rundir.rundir import RunDir

CONFIG: dict[str, Any] = {
    "name": "toy",
    "optim": {"lr": 0.1, "betas": [0.9, 0.999]},
    "data": {"_target_": "data.a.A", "fingerprint": "f" * 64},
    "loader": {"augment": []},
}


def member(home: Path, name: str, config: dict[str, Any] | None = None, plan: Any = None, **summary: Any) -> RunDir:
    run = Made(home / name, batch=False, world=World(1, 1, "cpu")).run
    run.config.write_text(yaml.safe_dump({**CONFIG, "id": name, **(config or {})}))
    here = run.path.rename(home / name / "runs" / "toy" / name)
    run = RunDir(here)
    run.plan.write_text(dataclasses.replace(run.read_plan(), **(plan or {})).to_json())
    if summary:
        run.summary.write_text(json.dumps({"state": "done", "torch": "2.13.0", "data_is_standin": False, **summary}))
    return run


def predicted(run: RunDir, split: str = "test", metadata: dict[str, str] | None = None, **columns: Any) -> Path:
    types = {"sample": pa.int64(), "label": pa.int64(), "predicted": pa.int64(), "loss": pa.float32()}
    types |= {"found": pa.list_(pa.float32()), "wanted": pa.list_(pa.float32())}
    table = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    path = run.path / "evaluation" / split / "predictions.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table.replace_schema_metadata(metadata or {}), path)
    return path


def classes(run: RunDir, wrong: Sequence[int], count: int = 100, split: str = "test", **columns: Any) -> Path:
    labels = [number % 10 for number in range(count)]
    found = [label + (number in wrong) for number, label in enumerate(labels)]
    loss = [1.0 if number in wrong else 0.1 for number in range(count)]
    return predicted(run, split, **{"sample": range(count), "label": labels, "predicted": found, "loss": loss, **columns})


def rows(out: str, title: str) -> dict[str, list[str]]:
    """Of a section whose keys go down."""
    block = out.partition(f"\n{title}: ")[2].partition("\n\n")[0].splitlines()[2:]
    return {line.split()[0]: line.split()[1:] for line in block}


def flowing(out: str) -> str:
    """Without the breaks of long lines."""
    return " ".join(out.split())


def test_what_differs_is_there_and_what_is_the_same_is_counted(tmp_path: Path, command: Command) -> None:
    one = member(tmp_path, "a", val_loss=0.5, test_accuracy=0.75, steps=10, seconds=2.0)
    other = member(
        tmp_path,
        "b",
        {"optim": {"lr": 0.2, "betas": [0.9, 0.99]}, "ema": None},
        torch="2.14.0",
        val_loss=0.25,
        test_accuracy=0.75,
        steps=10,
    )
    answer = command("compare", str(one), str(other))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("1  toy/a  done\n2  toy/b  done\n\nconfig: 3 of 7 keys differ\n")
    assert rows(answer.out, "config") == {"optim.lr": ["0.1", "0.2"], "optim.betas[1]": ["0.999", "0.99"], "ema": ["–", "null"]}
    assert rows(answer.out, "versions") == {"torch": ["2.13.0", "2.14.0"]}
    assert rows(answer.out, "metrics") == {
        "val_loss": ["0.5", "0.25", "-0.25"],
        "test_accuracy": ["0.75", "0.75", "+0"],
        "steps": ["10", "10", "+0"],
        "seconds": ["2", "–"],
    }
    assert "warning" not in answer.out
    assert "paired" not in answer.out


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("count", [2, 3, 12])
def test_no_line_is_wider_than_the_terminal(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, columns: int, count: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    runs = [
        member(tmp_path, f"run-{n}", {"a_key_of_some_length": {"of_a_section": f"/a/{'long/' * 30}{n}"}, "seed": n}, val_loss=n / 3)
        for n in range(count)
    ]
    out = command("compare", *map(str, runs)).out
    assert max(map(len, out.splitlines())) <= columns
    assert out.count("seed") == 1
    assert "long/…" in out or "…" in out


def test_other_data_and_other_code_are_said(tmp_path: Path, command: Command) -> None:
    plans = [{"code_hash": each * 8, "packages": (("launcher", "1" * 64), ("mine", each * 64))} for each in "ab"]
    one = member(tmp_path, "a", plan=plans[0], val_loss=1.0)
    other = member(tmp_path, "b", {"data": {"_target_": "data.a.A", "fingerprint": "e" * 64}}, plan=plans[1], val_loss=1.0)
    out = command("compare", str(one), str(other)).out
    assert "warning: THE NUMBERS ARE OF OTHER DATA: 2 different data.fingerprint\n" in out
    assert rows(out, "code") == {"all": ["of", "it", "aaaaaaaa", "bbbbbbbb"], "mine": ["a" * 12, "b" * 12]}
    assert rows(out, "data") == {"data.fingerprint": ["f" * 16, "e" * 16]}
    standin = member(tmp_path, "c", val_loss=1.0, data_is_standin=True)
    assert "OTHER DATA: the built-in stand-in, not the real data set, in toy/c" in flowing(command("compare", str(one), str(standin)).out)
    moved = member(tmp_path, "d", {"data": {"_target_": "data.b.B"}}, val_loss=1.0)
    assert "OTHER DATA: data._target_ is data.a.A, data.b.B" in flowing(command("compare", str(one), str(moved)).out)


def test_of_copies_of_code_the_files_are_named(tmp_path: Path, command: Command) -> None:
    runs = [member(tmp_path, each, plan={"code_hash": each}) for each in "ab"]
    for run in runs:
        (run.code / "mine").mkdir(parents=True)
        (run.code / "mine" / "same.py").write_text("x = 1\n")
        (run.code / "mine" / "net.py").write_text(f"# {run.path.name}\n")
    (runs[1].code / "mine" / "more.py").write_text("")
    out = command("compare", *map(str, runs)).out
    assert "\ncode: 2 packages and files differ\n" in out
    assert "same.py" not in out
    assert "file mine/net.py" in out
    assert [line.split()[2] for line in out.splitlines() if "file mine/more.py" in line] == ["–"]


def test_two_classifiers_are_tested_on_the_same_samples(tmp_path: Path, command: Command) -> None:
    one, other = (member(tmp_path, each, val_loss=1.0) for each in "ab")
    classes(one, wrong=range(20))
    classes(other, wrong=range(15, 22))
    to = tmp_path / "to"
    to.mkdir()
    out = command("compare", str(one), str(other), f"to={to}").out
    assert "paired on test, 100 samples: each run beside run 1\n  2  accuracy  0.93 - 0.8 = +0.13  95 %: +0.0" in out
    assert "  2  McNemar   p = 0.0023  15 right in it alone, 2 in 1 alone\n" in out, "of 17 tosses: twice P(X <= 2) = 0.00235"
    assert "paired bootstrap, percentiles of 2,000 draws of all samples, seed 0" in out
    assert "Holm" not in out
    pair = json.loads((to / "compared.json").read_text())["paired"][0]["pairs"][0]
    assert pair["accuracy"]["low"] < 0.13 < pair["accuracy"]["high"]
    assert pair["loss"]["difference"] == pytest.approx(-0.13 * 0.9)
    assert pair["mcnemar"]["holm"] == pair["mcnemar"]["p"]


def test_with_more_than_two_each_is_beside_the_first_and_p_is_corrected(tmp_path: Path, command: Command) -> None:
    runs = [member(tmp_path, each) for each in "abc"]
    for run, wrong in zip(runs, (range(20), range(10), range(20, 30)), strict=True):
        classes(run, wrong)
    out = command("compare", *map(str, runs)).out
    assert "  2  McNemar   p = 0.002 (Holm 0.0039)  10 right in it alone, 0 in 1 alone\n" in out
    assert "  3  McNemar   p = 0.099 (Holm 0.099)  20 right in it alone, 10 in 1 alone\n" in out


def test_numbers_are_tested_by_their_losses(tmp_path: Path, command: Command) -> None:
    one, other = (member(tmp_path, each) for each in "ab")
    for run, less in ((one, 0.0), (other, 0.5)):
        predicted(run, sample=range(8), found=[[0.0]] * 8, wanted=[[1.0]] * 8, loss=[1 + n / 8 - less * (1 + n / 100) for n in range(8)])
    out = command("compare", str(one), str(other)).out
    assert "  2  Wilcoxon  p = 0.0078\n" in out
    assert "accuracy" not in out
    assert "95 %: -0.5" in out


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"sample": range(1, 101)}, "its samples are not those of run 1 (100 and 100)"),
        ({"sample": [0] * 100}, "has a sample twice"),
        ({"label": [3] * 100}, "90 labels are not those of run 1"),
        ({"metadata": {"fingerprint": "other"}}, "its predictions are of other data"),
        ({"loss": [float("nan")] * 100}, "100 are no finite numbers"),
    ],
)
def test_what_cannot_be_paired_is_said_and_not_tested(tmp_path: Path, command: Command, columns: dict[str, Any], why: str) -> None:
    one, other = (member(tmp_path, each) for each in "ab")
    classes(one, range(9), metadata={"fingerprint": "one"})
    classes(other, range(9), **columns)
    answer = command("compare", str(one), str(other))
    assert (answer.code, answer.err) == (0, "")
    assert "not tested: " in answer.out
    assert why in answer.out
    assert ("McNemar" in answer.out) == ("loss" in columns)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "schema":
        pq.write_table(pa.table({"sample": ["a"], "loss": [1.0]}), path)
    elif how == "null":
        pq.write_table(pa.table({"sample": pa.array([1, None], pa.int64()), "loss": [1.0, 2.0]}), path)
    elif how == "none":
        pq.write_table(pa.table({"sample": pa.array([], pa.int64()), "loss": pa.array([], pa.float32())}), path)
    elif how == "columns":
        pq.write_table(pa.table({"x": [1]}), path)
    elif how == "directory":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {"cut": data[: len(data) // 2], "text": b"no parquet\n", "empty": b"", "middle": data[:40] + b"\xff" * 200 + data[240:]}[how]
        )


@pytest.mark.parametrize("how", ["cut", "text", "empty", "middle", "schema", "null", "none", "columns", "directory"])
@pytest.mark.parametrize("which", [0, 1])
def test_damaged_predictions_are_a_line_of_the_table(tmp_path: Path, command: Command, how: str, which: int) -> None:
    runs = [member(tmp_path, each, val_loss=1.0) for each in "ab"]
    paths = [classes(run, range(9)) for run in runs]
    damage(paths[which], how)
    answer = command("compare", *map(str, runs))
    assert (answer.code, answer.err) == (0, "")
    assert f"  2  not tested: {'run 1: ' if which == 0 else ''}predictions.parquet" in answer.out
    assert "val_loss" in answer.out


@pytest.mark.parametrize("text", ["a: [", "", "- 1\n", "\0\0", "x: &a [*a]\n", "a: {b: !!python/object:os.system {}}\n"])
def test_a_damaged_config_or_summary_is_said_and_the_rest_compared(tmp_path: Path, command: Command, text: str) -> None:
    one, other, third = (member(tmp_path, each, {"seed": ord(each)}, val_loss=1.0) for each in "abc")
    other.config.write_text(text)
    third.summary.write_text("{")
    third.plan.write_text("{}")
    answer = command("compare", str(one), str(other), str(third))
    assert (answer.code, answer.err) == (0, "")
    assert "warning: toy/b: config.yaml is not" in answer.out
    assert "warning: toy/c: summary.json is damaged" in answer.out
    assert "plan.json is not a plan" in answer.out
    assert rows(answer.out, "config") == {"seed": ["97", "?", "99"]}
    assert "versions: all 6 versions are the same" in answer.out
    assert rows(answer.out, "metrics")["val_loss"] == ["1", "1", "–"]


def test_a_member_that_is_gone_is_one_warning(tmp_path: Path, command: Command) -> None:
    one, other = (member(tmp_path, each, val_loss=1.0) for each in "ab")
    folder = one.path.parent.parent / ".sweeps" / "mine"
    folder.mkdir(parents=True)
    entries = [{"number": number, "overrides": [], "run": str(run)} for number, run in enumerate((one, other, one.path.parent / "gone"))]
    (folder / "sweep.json").write_text(json.dumps({"objective": "val_loss", "members": entries}))
    answer = command("compare", str(folder))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count("warning") == 1
    assert "3  toy/gone  no summary\nwarning: toy/gone: there is no such run any more\n" in answer.out
    assert rows(answer.out, "metrics")["val_loss"] == ["1", "1", "–"]


def test_what_files_say_reaches_the_terminal_as_text(tmp_path: Path, command: Command) -> None:
    one = member(tmp_path, "a", {"evil": "\x1b]52;c;x\x07\nwarning: all is well"}, **{"val_\nloss\x1b[2J": 1.0})
    other = member(tmp_path, "b", {"evil": "x"})
    for run in (one, other):
        classes(run, range(3), split="a\nsplit\x1b[2J")
    out = command("compare", str(one), str(other)).out
    assert "\x1b" not in out
    assert not [line for line in out.splitlines() if line.startswith(("warning", "loss", "split"))]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("compare takes two runs or more", "compare RUN RUN…")),
        (("{a}",), ("compare was given one run", "type another beside it")),
        (("{a}", "{a}"), ("compare was given twice the same run",)),
        (("{a}", "nobody"), ("nobody: no such run",)),
        (("{a}", "{b}", "to=x", "to=y"), ("to=y: to=x is there already; type to= once",)),
        (("{a}", "{b}", "too=x"), ("compare too=: there is no such option; did you mean to=?",)),
        (("{a}", "{b}", "to="), ("to=: there is nothing after it; type to=DIR|FILE.png|.csv|.json, or leave it out",)),
        (("{a}", "{b}", "to=x.jpg"), ("to=x.jpg: files are .png, .csv and .json", "or a directory with / at its end")),
        (("{a}", "{b}", "to={a}/plan.json/x.png"), ("plan.json is a file, and no directory",)),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, command: Command, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    places = {each: member(tmp_path, each) for each in "ab"}
    refused(command("compare", *(word.format(**places) for word in words)), 2, *parts)


def test_files_have_what_the_screen_shortens(tmp_path: Path, command: Command) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    value = "/".join(map(str, range(100)))
    one, other = member(tmp_path, "a", {"root": value}, val_loss=1 / 3), member(tmp_path, "b", val_loss=float("nan"))
    to = tmp_path / "new" / "to"
    empty = command("compare", str(one), str(other), f"to={to}")
    assert "no curves: no run has metrics yet" in empty.out
    assert not (to / "compared.png").exists()
    for run, loss in ((one, 1.0), (other, 2.0)):
        run.metrics.write_text("".join(json.dumps({"step": step, "split": "train", "loss": loss / step}) + "\n" for step in (1, 2, 3)))
    assert command("compare", str(one), str(other), f"to={to}").code == 0
    table = {row[1]: row[2:] for row in csv.reader((to / "compared.csv").read_text().splitlines())}
    assert table == {"key": ["toy/a", "toy/b"], "root": [value, "–"], "val_loss": [str(1 / 3), "nan"]}
    record = json.loads((to / "compared.json").read_text(), parse_constant=pytest.fail)
    assert record["config"]["rows"] == {"root": [value, "–"]}
    with Image.open(to / "compared.png") as picture:
        assert picture.format == "PNG"
    assert command("compare", str(one), str(other), f"to={tmp_path / 'only.csv'}").code == 0
    assert (tmp_path / "only.csv").read_text() == (to / "compared.csv").read_text()


def test_a_sweep_of_five_hundred_is_a_table_too(tmp_path: Path, command: Command) -> None:
    first = member(tmp_path, "0", val_loss=0.0)
    plan = first.read_plan()
    runs = [first]
    for number in range(1, 500):
        run = RunDir(first.path.parent / str(number))
        run.path.mkdir()
        run.config.write_text(yaml.safe_dump({**CONFIG, "optim": {"lr": number / 1000}}))
        run.plan.write_text(dataclasses.replace(plan, id=str(number)).to_json())
        run.summary.write_text(json.dumps({"state": "done", "val_loss": 1 / number}))
        runs.append(run)
    for run in runs[::100]:
        classes(run, range(7))
    folder = first.path.parent.parent / ".sweeps" / "mine"
    folder.mkdir(parents=True)
    members = [{"number": number, "overrides": [], "run": str(run)} for number, run in enumerate(runs)]
    (folder / "sweep.json").write_text(json.dumps({"objective": "val_loss", "members": members}))
    began = time.monotonic()
    answer = command("compare", str(folder))
    assert time.monotonic() - began < 20
    assert (answer.code, answer.err) == (0, "")
    assert max(map(len, answer.out.splitlines())) <= 80
    assert answer.out.count("\n101  toy/100 ") == 1
    assert "  101  McNemar   p = 1 (Holm 1)  0 right in it alone, 0 in 1 alone" in answer.out
    assert "  102  not tested: no predictions of it" in answer.out
