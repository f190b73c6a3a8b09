"""What cannot be split is said before anything starts, in one line that names the key and what to type instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import TOY, Command

TEXT, TWO = "+exp=shakespeare", "cluster.processes_per_node=2"
GPUS = ("cluster=slurm", "cluster.nodes=1", "cluster.processes_per_node=2", "cluster.device=cuda")
PARTS = ("strategy=cp", "strategy.on_cpu=true")
LOOPED = ("strategy.schedule=interleaved",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (TEXT, TWO, "strategy=hsdp", "strategy.dp_shard=3"),
            "strategy.dp_shard=3: groups of so many processes do not fill a world of 2 (1 x 2)",
        ),
        ((TEXT, TWO, "strategy=fsdp", "strategy.dp_shard=some"), "type all, node, or a divisor of 2"),
        ((TEXT, TWO, "strategy=fsdp", "strategy.dp_shard=0"), "type all, node, or a divisor of 2"),
        (
            (TEXT, TWO, "strategy=fsdp", "strategy.param_dtype=int8"),
            "strategy.param_dtype=int8 is no type that weights are sent in; type one of bfloat16",
        ),
        (
            (TEXT, TWO, "strategy=fsdp", "strategy.cpu_offload=true"),
            "strategy.cpu_offload=true: on a CPU all lies in the host's memory as it is; type strategy.cpu_offload=false",
        ),
        (
            (TEXT, *GPUS, "strategy=fsdp", "strategy.cpu_offload=true", "strategy.dp_shard=1"),
            "strategy.cpu_offload=true: pieces are kept there, and strategy.dp_shard=1 leaves none",
        ),
        (
            (TEXT, *GPUS, "strategy=hsdp", "strategy.cpu_offload=true", "train.precision=fp16"),
            "the gradient scaler of fp16 looks at gradients on the GPU; type train.precision=bf16 or fp32",
        ),
        ((TEXT, TWO, "strategy=fsdp", "strategy.prefetch=-1"), "strategy.prefetch=-1 cannot be; type how many blocks ahead"),
        (("+exp=cifar", TWO, "strategy=fsdp", "train.channels_last=true"), "type train.channels_last=auto"),
        ((*TOY, TWO, "strategy=fsdp", "optim=lbfgs", "strategy.wrap=[A]"), "optim: lbfgs works on whole matrices"),
        ((*TOY, TWO, "strategy=zero1", "optim=lbfgs"), "type optim=adamw or strategy=ddp"),
        ((TEXT, TWO, "strategy=tp", "strategy.tp=3"), "strategy.tp=3: layers in so many parts do not fill a world of 2 (1 x 2)"),
        (
            (TEXT, "cluster.processes_per_node=8", "strategy=tp"),
            "model.heads=4 cannot be cut into strategy.tp=8 equal parts",
        ),
        ((TEXT, TWO, "strategy=tp", "model.kv_heads=1"), "model.kv_heads=1 cannot be cut into strategy.tp=2 equal parts"),
        (
            (TEXT, TWO, "strategy=tp", "strategy.loss_parallel=true", "task.z_loss=0.1"),
            "strategy.loss_parallel=true: task.z_loss=0.1 would gather all scores again; type task.z_loss=0, or strategy.loss_parallel=",
        ),
        ((TEXT, TWO, "strategy=tp", "data.length=63"), "data.length=63 cannot be cut"),
        (("+exp=cifar", TWO, "strategy=tp"), "models.resnet9.ResNet9 does not say how its layers can be cut"),
        ((TEXT, TWO, "strategy.comm_hook=fp8"), "strategy.comm_hook=fp8 is none; type one of none, fp16, bf16, powersgd"),
        ((TEXT, TWO, "strategy.comm_hook=bf16"), "gloo, by which CPUs talk, cannot add bfloat16; type fp16"),
        ((TEXT, TWO, "strategy.static_graph=true", "train.accumulate=2"), "type train.accumulate=1"),
        ((TEXT, TWO, "strategy.comm_hook=powersgd", "strategy.powersgd_start=1"), "strategy.powersgd_start=1 cannot be"),
        ((TEXT, TWO, "strategy=pp", "train.accumulate=1"), "train.accumulate=1: too few micro-batches for 2 stages; type a multiple of 2"),
        ((TEXT, TWO, "strategy=pp", "train.accumulate=1"), "with 2 a process idles for 33% of the time, with 8 a process idles for 11%"),
        ((*TOY, TWO, "strategy=pp", "train.accumulate=2"), "does not say what it is a row of; write STAGES into its file"),
        ((TEXT, TWO, "strategy=pp", "strategy.pp=1"), "strategy.pp=1: one stage is no pipeline; type strategy=ddp"),
        ((TEXT, TWO, "strategy=pp", "strategy.pp=3"), "strategy.pp=3: stages do not fill a world of 2 (1 x 2)"),
        (
            (TEXT, "cluster.processes_per_node=4", "strategy=pp", "strategy.pp=2", "strategy.dp_shard=3"),
            "strategy.dp_shard=3: groups of so many processes for each stage do not fill a world of 2",
        ),
        ((TEXT, TWO, "strategy=pp", "strategy.schedule=2f2b"), "type one of gpipe, 1f1b, interleaved, zero_bubble"),
        ((TEXT, TWO, "strategy=pp", "train.accumulate=2", "strategy.stages_per_process=2"), "or a larger number with interleaved"),
        (
            (
                TEXT,
                TWO,
                "strategy=pp",
                "train.accumulate=3",
                "train.batch_size=48",
                "strategy.stages_per_process=2",
                "strategy.schedule=interleaved",
            ),
            "train.accumulate=3: too few micro-batches for 2 stages; type a multiple of 2",
        ),
        (
            (TEXT, "cluster.processes_per_node=4", "strategy=pp", "strategy.pp=2", "strategy.dp_shard=2", "strategy.schedule=zero_bubble"),
            "torch cannot hold its stages in pieces; type strategy.dp_shard=1",
        ),
        (
            (*TOY, TWO, "model=resnet8", "model.num_classes=4", "strategy=pp", "train.accumulate=2", "optim=lbfgs"),
            "LBFGS evaluates all of a model again",
        ),
        ((TEXT, TWO, "strategy=pp", "train.accumulate=2", "train.compile=true"), "type train.compile=blocks"),
        (
            ("+exp=cifar", TWO, "strategy=pp", "train.accumulate=2", "model=resnet20", "train.channels_last=true"),
            "type train.channels_last=auto",
        ),
        (
            (TEXT, "data.boundaries=true", "model=resnet9"),
            "data.boundaries=true: models.resnet9.ResNet9 takes no second input, the document of each token; type data.boundaries=false",
        ),
        ((TEXT, "train.fp8=true"), "train.fp8=true: a CPU computes nothing in 8 bits; type train.fp8=false"),
        ((*TOY, "train.compile=blocks"), "names no blocks to do it by"),
        ((TEXT, "train.compile=sometimes"), "train.compile=sometimes cannot be; type true, false or blocks"),
        ((TEXT, "train.compile_mode=fast"), "train.compile_mode=fast cannot be; type one of default, reduce-overhead"),
        ((TEXT, TWO, "strategy=cp"), "and this run is on CPUs; type strategy=fsdp, or strategy.on_cpu=true to try it out"),
        ((TEXT, TWO, *PARTS, "strategy.cp=3"), "strategy.cp=3: sequences in so many parts do not fill a world of 2 (1 x 2)"),
        ((TEXT, TWO, *PARTS, "strategy.cp=1"), "strategy.cp=1: a sequence in one part is whole; type strategy=ddp"),
        (
            (TEXT, TWO, *PARTS, "data.length=62"),
            "data.length=62 cannot be cut over strategy.cp=2, of which each has two pieces; type a multi",
        ),
        ((TEXT, TWO, *PARTS, "train.compile=true"), "type train.compile=blocks"),
        (
            (*TOY, TWO, *PARTS),
            "does not say what goes along a sequence; write BLOCKS and CONTEXT_PARALLEL into",
        ),
        ((*TOY, TWO, "strategy=fsdp"), "names no blocks, so its weights would all be gathered at once"),
    ],
)
def test_it_is_one_line(command: Command, words: tuple[str, ...], said: str) -> None:
    answer = command("plan", *words)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert said in answer.lines[0]


@pytest.mark.parametrize(
    ("words", "mesh"),
    [
        (("strategy=fsdp", "cluster.processes_per_node=4"), {"dp_shard": 4}),
        (("strategy=zero1", "cluster.processes_per_node=4"), {"dp_shard": 4}),
        (
            ("strategy=hsdp", "cluster=slurm", "cluster.nodes=3", "cluster.device=cpu", "cluster.processes_per_node=2"),
            {"dp_replicate": 3, "dp_shard": 2},
        ),
        (("strategy=hsdp", "strategy.dp_shard=2", "cluster.processes_per_node=8"), {"dp_replicate": 4, "dp_shard": 2}),
        ((*PARTS, "strategy.cp=2", "cluster.processes_per_node=8"), {"dp_replicate": 4, "cp": 2}),
    ],
)
def test_degrees_multiply_to_the_world(command: Command, words: tuple[str, ...], mesh: dict[str, int]) -> None:
    answer = command("plan", TEXT, "train.batch_size=48", *words)
    assert answer.code == 0, answer.err
    assert {name: size for name, size in json.loads(answer.out)["mesh"].items() if size > 1} == mesh


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("sum", "BLOCKS = [name for name in ()]", "mine.sum.BLOCKS is no literal, and is read without running the file"),
        ("text", "BLOCKS = 'Block'", "mine.text.BLOCKS='Block' is no tuple of names"),
    ],
)
def test_what_a_file_says_of_its_blocks_is_read_and_not_run(command: Command, tmp_path: Path, name: str, line: str, said: str) -> None:
    for folder in ("mine", "conf/exp", "conf/model"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / f"{name}.py").write_text(f"{line}\nraise SystemExit('run')\nclass Net:\n    def __init__(self, **all): ...\n")
    (tmp_path / "conf" / "model" / "own.yaml").write_text(f"_target_: mine.{name}.Net\n")
    (tmp_path / "conf" / "exp" / "own.yaml").write_text("# @package _global_\ndefaults:\n  - override /model: own\ntrust: [mine]\n")
    config = ("--config-dir", str(tmp_path / "conf"), "+exp=own")
    answer = command("plan", *config, TWO, "strategy=fsdp")
    assert answer.code == 2, answer.err
    assert said in answer.lines[0]
