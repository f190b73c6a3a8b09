"""The fixed keys, their types and their defaults. The yamls in conf/ only depart from them.

Group nodes (`model`, `data`, `loader`, `optim`, `schedule`, `strategy`, `cluster`, `task`) are constructor calls: `_target_` and its
keywords, checked against the constructor itself (launcher/config/targets.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

Text = Any
"""A text, as it was typed: with `str`, OmegaConf would make 20241121 of `2024_11_21` and keep quiet (launcher/compose/typed.py)."""


@dataclass
class TrainConfig:
    epochs: int = 10
    """Passes over the training part; `steps` wins where it is set."""
    steps: int | None = None
    """Optimizer updates in all; null: epochs x (training samples // batch_size)."""
    seconds: float | None = None
    """Seconds of the clock, of all attempts, after which the run ends as if that had been its last step; null: as many as it takes. The
    schedule goes by `steps` or `epochs` all the same."""
    early_stop: Any = None
    """{patience: 3}: the run ends when `objective` has been no better for so many evaluations. Besides {metric: val_loss, mode: min,
    min_delta: 0.01}: another entry, and by how much it has to be better. null: it goes on."""
    batch_size: int = 128
    """Samples in one optimizer update over the whole world. Divided by world x accumulate, or refused; or see round_batch."""
    round_batch: bool = False
    """Where batch_size does not divide, take the nearest that does and say so, when the run is planned. The frozen run has the number."""
    scale_lr: Any = None
    """{linear: 256} or {sqrt: 256}: the rates of `optim` are for a batch of so many, and are scaled to batch_size when the run is planned.
    The frozen run has what they became, and does not scale them again. null: they are as they are."""
    accumulate: int = 1
    """Micro-batches per update; gradients are reduced across processes once, with the last."""
    precision: str = "auto"
    """auto | bf16 | fp16 | fp32. auto takes bf16 where the device computes it, fp16 on GPUs that have only that; it logs why."""
    compile: Any = False
    """torch.compile the model: true: whole; blocks: each block (BLOCKS in its file), of which one is compiled for all that are alike.
    Slower on a CPU, and half a minute of start-up, once: what was compiled is kept in ~/.cache/launcher/torchinductor."""
    compile_mode: str = "default"
    """default | reduce-overhead | max-autotune | max-autotune-no-cudagraphs, as torch.compile has them."""
    compile_dynamic: bool | None = None
    """Whether it is compiled for all shapes at once; null: when a second one comes."""
    fp8: bool = False
    """Products of linear layers in 8 bits, by torchao, on GPUs of compute capability 8.9 and later; the rest as `precision` says."""
    activation_checkpointing: str = "none"
    """none | selective | full: what a block of the model (BLOCKS in its file) computes is made again in the backward pass instead of kept;
    selective: but for products and attention, which cost most."""
    device_probe: bool = False
    """Where cluster.device=auto finds a GPU, time a few updates of this run on it and on the CPU before it starts, and take the quicker: a
    model may be so small that a GPU only waits for its host. On this machine only."""
    channels_last: Any = "auto"
    """NHWC memory for 4-d weights and activations: what tensor cores and oneDNN want. auto: true, but where the strategy cuts weights or
    sends activations, or the optimizer is LBFGS: they need tensors as torch makes them."""
    clip_norm: float = 0.0
    """Clip the global L2 norm of the gradient to this; 0: no clipping."""
    ema_decay: float = 0.0
    """Evaluate an exponential moving average of the weights with this decay per step; 0: the weights themselves."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    eval_every: Any = "auto"
    """Steps between evaluations on the validation part; auto: once per epoch; 0: only at the end."""
    save_every: Any = "auto"
    """Steps between checkpoints; auto: as often as loses least time, by what saving costs here and how often machines fail. There is
    always one at the end."""
    mtbf_hours: float = 4.0
    """Mean time between failures of the whole job, for save_every=auto; 16,384 GPUs had 2.8 (Llama 3, https://arxiv.org/abs/2407.21783)."""
    keep: int = 2
    """Checkpoints to keep, at least 2: the newest may be the one that a dying disk tore."""
    keep_best: bool = False
    """Save after each evaluation whose `objective` is the best yet (or the metric of early_stop), and keep that beside the newest."""
    encrypt: bool = False
    """Encrypt checkpoints, with the key in LAUNCHER_KEY or in the file LAUNCHER_KEY_FILE: without it nobody reads them, or changes them
    unseen."""
    hang_seconds: float = 180.0
    """A rank that is so long, and 20 times the slowest step, in one part of a step hangs: it is named, the attempt ends. 0: no watch."""
    compare_every: int = 100
    """Steps between comparisons of what should be equal on all ranks: weights, optimizer state, averages; 0: none."""
    layers_every: int = 500
    """Steps between looks at each layer: gradient norm, update ratio, dead outputs; 0: none."""
    on_bad: str = "stop"
    """When the loss is not finite, or jumps: stop | rollback | skip. rollback: to the newest checkpoint before it, and past its batches.
    skip: updates whose gradient is not finite are left out; what else goes wrong stops the run."""
    spike: float = 0.0
    """A loss (mean of a line of metrics) so many times the median of the last 20 is bad too; 0: none is."""
    max_rollbacks: int = 3
    """In the whole run; after so many it stops."""
    max_skips: int = 10
    """Updates that on_bad=skip may leave out, in the whole run; at one more it stops."""
    adversarial: Any = None
    """fgsm | pgd: train on samples that such an attack on the model has made worse (launcher/train/robust/adversary.py), by 2/255 where
    pixels go from 0 to 1; {kind: pgd, epsilon: 0.0314, steps: 7}: by as much as that says. Lines of training are of those samples,
    evaluations of samples as they are. null: so is training."""
    deterministic: bool = False
    """Refuse kernels that may give other bits from run to run. On a GPU a resumed run is equal to the last bit only with true; on a
    CPU there are no such kernels in use."""


@dataclass
class ScriptConfig:
    """A program of the user's own in the place of the trainer (docs/script.md)."""

    file: Text | None = None
    """A Python file, an executable, or with `module` the name of a module. `script=train.py` is short for it; null: the trainer."""
    module: bool = False
    """Whether `file` is what `python -m` takes."""
    args: list[Text] = field(default_factory=list[Text])
    """Its arguments, one word each; no shell reads them."""
    resume_args: list[Text] = field(default_factory=list[Text])
    """More of them, from the second attempt on."""
    stop_signal: Text = "TERM"
    """TERM | INT | USR1 | USR2 | HUP. What it gets when the run is to stop: from a person, or because its time or its place ends."""
    progress: Text | None = None
    """A regular expression with a group `step`, and perhaps `total` and others, that finds how far it is in its output; null: it says so
    itself, or nobody knows."""


@dataclass
class Config:
    name: Text = "run"
    """What this run is called; the directory between runs_dir and id."""
    id: Text | None = None
    """Which run of that name; null: a sortable time stamp. The same id again continues that run."""
    seed: int = 0
    """Initial weights, data split, order of samples, augmentation."""
    runs_dir: Text = "runs"
    """Where run directories go."""
    runs_mode: str = "private"
    """private | group. group: the group of runs_dir may read the run, which stays its owner's to change and to resume."""
    resume: str = "auto"
    """auto: an existing run continues from its newest good checkpoint. never: set its checkpoints aside, start at 0."""
    objective: Any = "val_accuracy"
    """The entry of summary.json by which a sweep ranks its members, and what a sweeper that needs results is told. Its name says which way
    is better (a loss or an error: less), or you do: {metric: val_mape, mode: min}. Not the test part's: who chooses by that has no test."""
    trust: list[str] = field(default_factory=list[str])
    """Your own packages that `_target_` may name. Only a file can set it, never the command line."""
    model: Any = MISSING
    data: Any = MISSING
    loader: Any = MISSING
    optim: Any = MISSING
    schedule: Any = MISSING
    strategy: Any = MISSING
    cluster: Any = MISSING
    task: Any = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    script: ScriptConfig = field(default_factory=ScriptConfig)
    """Only in the config of a run that has one, which has none of the groups but `cluster`, and no `train`."""


GROUPS = ("model", "data", "loader", "optim", "schedule", "strategy", "cluster", "task", "exp")

OLDER = {
    "loader": {
        "_target_": "data.resident.Resident",
        "val": 0.1,
        "test": 0.1,
        "eval_batch_size": 500,
        "balance": "none",
        "augment": None,
    }
}
"""What a run has that was frozen before there was such a group to choose from."""
