"""Sequences that are cut over processes (cp): the numbers of one process, whatever attention a model has; what cannot be cut is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import finish, lines, losses, said_by
from split_runs import finished, words

NEAR = 1e-5


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What tests/strategies/in_parts.py says, of each of two ranks."""
    home, program = tmp_path_factory.mktemp("parts"), Path(__file__).with_name("in_parts.py")
    return said_by(home, [[str(program), str(rank), str(home / "meeting")] for rank in range(2)])


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_every_kind_of_attention_computes_what_it_does_on_the_whole(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        kinds = {kind: of for kind, of in found.items() if kind != "refused"}
        assert len(kinds) == 8
        for kind, of in kinds.items():
            assert of["far"] < 1e-5, kind
            assert of["given"] == 4, "each block has half of the tokens"
            assert of["is torch's again"]


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("label", "a batch has tensors of [(3, 8, 8), (3,)], and not all are (B, T, …) with one T; type strategy=fsdp"),
        ("length", "a sequence of 6 cannot be cut over 2 processes; pad it to a multiple of 4"),
        ("name", "the model's attention is not torch.nn.functional.scaled_dot_product_attention, called by that name"),
        ("mean", "the model gives a tensor of (3, 8), and no process has more than 4 of the 8 tokens; type strategy=fsdp"),
    ],
)
def test_what_is_no_chain_of_sequences_is_said(ranks: list[dict[str, Any]], what: str, said: str) -> None:
    for found in ranks:
        assert said in found["refused"][what]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_all_strategies_share_goes_with_it(tmp_path: Path) -> None:
    """Micro-batches, blocks that are compiled, activations that are made again, weights that the host does not know."""
    found: dict[str, tuple[dict[int, float], list[float], float, int]] = {}
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "machine.yaml").write_text("# @package _global_\ntrust: [toyproject]\n")
    trusted = ("--config-dir", str(tmp_path), "task._target_=toyproject.letters.Letters")
    shared = ("train.steps=12", *trusted)
    ours = ("train.accumulate=2", "train.compile=blocks", "train.activation_checkpointing=selective")
    for name, split, more in (("one", "one", ()), ("cut", "cp(2)", ours)):
        run = finished(finish(tmp_path, words(tmp_path, name, split, *shared, *more), timeout=250), tmp_path, name)
        norms = [line["grad_norm"] for line in lines(run / "metrics.jsonl") if line["split"] == "train"]
        last = [line for line in lines(run / "metrics.jsonl") if line["split"] == "val"][-1]
        found[name] = losses(run), norms, last["loss"], last["samples"]
    (one, norms, validation, samples), (cut, others_norms, other, others) = found["one"], found["cut"]
    difference = max(abs(cut[step] - one[step]) / one[step] for step in one)
    print(f"cp(2), two micro-batches, compiled, selective: at most {difference:.1e} from one process, over 12 steps")
    assert cut.keys() == one.keys()
    assert difference <= NEAR
    assert others_norms == pytest.approx(norms, rel=NEAR)
    assert other == pytest.approx(validation, rel=NEAR)
    assert others == samples
