"""precision=auto takes what the devices of all ranks compute, says why, and no later attempt changes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import claimed
from processes import PROJECT, REPO, events, finish, toy_words

from launcher.errors import ConfigError
from launcher.train import precision
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.stored import stored_precision
from launcher.train.precision import Ability, settle
from launcher.train.world.ranks import Ranks

GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A card of any generation: there is none on the machines that run these tests."""
    card = SimpleNamespace(capability=(9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: card.capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    return card


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")])
def test_auto_follows_the_generation_of_the_card(gpu: SimpleNamespace, capability: tuple[int, int], expected: str) -> None:
    gpu.capability = capability
    chosen, why = precision.choose("auto", GPU)
    assert chosen == expected
    assert "a card, compute capability" in why


def test_bf16_on_a_card_without_it_is_refused_with_what_to_type(gpu: SimpleNamespace) -> None:
    gpu.capability = (7, 0)
    with pytest.raises(ConfigError, match=r"^train\.precision=bf16: .*; type train\.precision=fp16$"):
        precision.choose("bf16", GPU)


def test_what_is_asked_for_is_taken(gpu: SimpleNamespace) -> None:
    assert precision.choose("fp32", GPU) == ("fp32", "asked for")
    assert precision.choose("bf16", torch.device("cpu"))[0] == "bf16"


H100 = Ability("n1", ("bf16", "fp16", "fp32"), (), "an H100 has bf16")
V100 = Ability("n2", ("fp16", "fp32"), (), "a V100 has no bf16")
P100 = Ability("n3", ("fp32",), ("fp16",), "a P100 has no tensor cores")
OLD_CPU = Ability("n4", ("fp32",), ("bf16",), "this CPU has no bf16")
CPU = Ability("n5", ("bf16", "fp32"), (), "this CPU has bf16")


@pytest.mark.parametrize(
    ("ranks", "taken", "reason"),
    [
        ([H100, H100], "bf16", "an H100 has bf16"),
        ([H100, V100], "fp16", "the fastest that all ranks have: rank 1 on n2: a V100 has no bf16"),
        ([P100, V100, H100], "fp32", "the fastest that all ranks have: rank 0 on n3: a P100 has no tensor cores"),
        ([CPU, OLD_CPU], "fp32", "the fastest that all ranks have: rank 1 on n4: this CPU has no bf16"),
    ],
)
def test_auto_takes_what_all_ranks_have(ranks: list[Ability], taken: str, reason: str) -> None:
    assert settle("auto", ranks) == (taken, reason)


def test_one_rank_that_cannot_refuses_for_all_and_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^train\.precision=bf16: rank 1 on n2: a V100 has no bf16; type train\.precision=fp16$"):
        settle("bf16", [H100, V100, H100])


@pytest.mark.parametrize("asked", ["auto", "bf16"])
def test_a_run_is_not_changed_by_the_nodes_it_resumes_on(asked: str) -> None:
    assert settle(asked, [H100], stored="bf16") == ("bf16", "as in the attempts before")
    assert settle(asked, [H100, H100], stored="fp32")[0] == "fp32", "a faster node is no reason either"
    assert settle(asked, [CPU, OLD_CPU], stored="bf16") == (
        "bf16",
        "as in the attempts before, though rank 1 on n4: this CPU has no bf16: correct, but not known to be faster than fp32",
    )
    with pytest.raises(ConfigError, match=r"computes in bf16 .* rank 1 on n2: a V100.*cluster\.exclude=n2,n3\), .* train\.precision=fp32$"):
        settle(asked, [H100, V100, P100, V100], stored="bf16")


def test_what_is_stored_is_read_from_the_newest_checkpoint_that_can_be(tmp_path: Path) -> None:
    assert stored_precision(tmp_path / "none") == ""
    store = CheckpointStore(tmp_path / "c", Ranks(0, 1), claimed(tmp_path), 0, 2)
    for step in (1, 2):
        store.save(step, {"state.json": (b'{"state": {"precision": "bf16"}}',)})
    (store.path / "step_000000002" / "state.json").write_bytes(b'{"state": {"precision": "fp16"}}')
    assert stored_precision(store.path) == "bf16"


@pytest.mark.slow
def test_unlike_ranks_agree_and_the_next_attempt_keeps_to_it(tmp_path: Path) -> None:
    """Two real ranks, the second on a processor without bf16; the next attempt has it on both. A rank that chose for itself would have
    trained in bf16 beside one in fp32, and both in bf16 after."""
    path = os.pathsep.join(str(each) for each in (PROJECT / "unlike", REPO, PROJECT))
    words = (
        "id=a",
        "cluster.processes_per_node=2",
        "train.precision=auto",
        "train.steps=14",
        "train.save_every=3",
        "loader.fault=[12,abort]",
    )
    flags = json.dumps({"000.1": "sse", "*": "avx512_bf16"})
    done = finish(tmp_path, toy_words(tmp_path / "runs", *words), TOY_STEP_SECONDS="0.1", PYTHONPATH=path, UNLIKE_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "toy" / "a"
    assert [event["step"] >= 3 for event in events(run, "started")] == [False, True]
    assert "precision fp32 (the fastest that all ranks have: rank 1 on " in (run / "attempts" / "000" / "rank_0.log").read_text()
    assert "precision fp32 (as in the attempts before)" in (run / "attempts" / "001" / "rank_0.log").read_text()
    assert json.loads((run / "summary.json").read_text())["precision"] == "fp32"


@pytest.mark.parametrize("looks", ["looks", "does not"])
def test_a_stage_leaves_out_the_update_whose_gradient_overflowed_in_another(tmp_path: Path, looks: str) -> None:
    """Whether or not somebody wanted the norm, for which gradients are unscaled earlier."""
    words = [sys.executable, str(Path(__file__).with_name("staged_scaler.py")), str(tmp_path / "meet"), looks]
    done = subprocess.run(words, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda each: each["rank"])
    assert found == [{"rank": rank, "moved": 1, "scale": 2.0**15} for rank in (0, 1)]
