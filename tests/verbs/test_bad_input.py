"""A user's mistake is one line that names the key, says why and what to type instead; the exit code; and nothing else.

The rows run inside this process: the same code without the start of an interpreter. test_bad_command.py has the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Answer, refused

Command = Callable[..., Answer]

LONG = "a" * 65
NAME = "cannot name a directory and a job"
UNREADABLE = "cannot be read; type key=value, and quote"

KEYS = """\
nme=x                           nme: no such key; did you mean name?
di=x                            di: no such key; did you mean id?
sed=1                           sed: no such key; did you mean seed?
rundir=x                        rundir: no such key; did you mean runs_dir?
train.epoch=3                   train.epoch: no such key; did you mean train.epochs?
train.batchsize=8               train.batchsize: no such key; did you mean train.batch_size?
train.precisio=fp32             train.precisio: no such key; did you mean train.precision?
train.clipnorm=1                train.clipnorm: no such key; did you mean train.clip_norm?
train.log_evry=1                train.log_evry: no such key; did you mean train.log_every?
train.evalevery=1               train.evalevery: no such key; did you mean train.eval_every?
train.keeep=3                   train.keeep: no such key; did you mean train.keep?
train.determi=true              train.determi: no such key; did you mean train.deterministic?
cluster.node=1                  cluster.node: no such key; did you mean cluster.nodes?
cluster.process_per_node=1      cluster.process_per_node: no such key; did you mean cluster.processes_per_node?
cluster.devicee=cpu             cluster.devicee: no such key; did you mean cluster.device?
cluster.max_restart=1           cluster.max_restart: no such key; did you mean cluster.max_restarts?
optim.lrr=1                     optim.lrr: no such key; did you mean optim.lr?
optim.learning_rate=1           optim.learning_rate: no such key; it takes groups, lr, momentum, nesterov, weight_decay
model.widthh=1                  model.widthh: no such key; did you mean model.width?
+model.widthh=1                 model.widthh: toyproject.net.Net takes no such keyword; did you mean width?
data.sample=1                   data.sample: no such key
+data.sample=1                  data.sample: toyproject.blobs.Blobs takes no such keyword; did you mean samples?
loader.fail=1                   loader.fail: no such key; did you mean loader.fail_at?
loader=residen                  loader=residen: no such choice; did you mean resident?
task.label_smothing=0.1         task.label_smothing: no such key; did you mean task.label_smoothing?
lr=0.1                          lr: no such key; did you mean optim.lr?
epochs=3                        epochs: no such key; did you mean train.epochs?
+foo=1                          foo: no such key; it takes cluster, data,
++train.foo=1                   train.foo: no such key; it takes accumulate, activation_checkpointing,
~seed                           seed is needed
~task                           task has no value and needs one
~model                          model has no value and needs one
~train.epochs                   train.epochs
modl=resnet8                    modl: no such key; did you mean model?
model=resnet88                  model=resnet88: no such choice; did you mean resnet
model=../../etc/passwd          a choice is the name of a file below conf/
model=null                      model=null
optim=rmsprop                   optim=rmsprop: no such choice; it takes adafactor, adam, adamw, lamb, lars, lbfgs, lion, muon, sgd
strategy=dpd                    strategy=dpd: no such choice; did you mean ddp?
data=cifar                      data=cifar: no such choice; did you mean cifar10?
exp=toyy                        exp=toyy: no such choice; did you mean toy?"""

VALUES = """\
train.epochs=0                  train.epochs=0 cannot be; type a whole number from 1
train.epochs=nan                train.epochs=nan
train.epochs=1.5                train.epochs=1.5
train.epochs=many               train.epochs=many
train.epochs=null               train.epochs=null
train.steps=0                   train.steps=0 cannot be; type a whole number from 1, or null
train.batch_size=0              train.batch_size=0 cannot be; type a whole number from 1
train.batch_size=-64            train.batch_size=-64 cannot be
train.accumulate=0              train.accumulate=0 cannot be
train.accumulate=3              train.batch_size=64 is not divisible by 1 process x train.accumulate=3; type train.batch_size=63
train.precision=fp8             train.precision=fp8 cannot be; type one of auto, bf16, fp16, fp32
train.precision=fp16            train.precision=fp16 is silently fp32 on a CPU; type train.precision=bf16 or fp32
train.compile=maybe             train.compile=maybe
train.deterministic=very        train.deterministic=very
train.clip_norm=-1              train.clip_norm=-1.0 cannot be; type a number from 0
train.clip_norm=inf             train.clip_norm=inf is not a finite number
train.ema_decay=1               train.ema_decay=1.0 cannot be
train.ema_decay=nan             train.ema_decay=nan is not a finite number
train.log_every=0               train.log_every=0 cannot be
train.eval_every=often          train.eval_every=often cannot be; type auto
train.save_every=0              train.save_every=0 cannot be; type auto
train.mtbf_hours=0              train.mtbf_hours=0.0 cannot be; type hours above 0
train.hang_seconds=-1           train.hang_seconds=-1.0 cannot be; type seconds, or 0 for no watch
train.on_bad=ignore             train.on_bad=ignore cannot be; type one of stop, rollback, skip
train.max_skips=0               train.max_skips=0 cannot be; type a whole number from 1
train.spike=0.5                 train.spike=0.5 cannot be; type 0 for none, or a number above 1
train.max_rollbacks=0           train.max_rollbacks=0 cannot be; type a whole number from 1
train.compare_every=-1          train.compare_every=-1 cannot be; type a whole number of steps
cluster.requeue=maybe           cluster.requeue='maybe' is not of type bool
train.save_every=1.5            train.save_every=1.5 cannot be
train.encrypt=aes               train.encrypt=aes: Value 'aes' is not a valid bool
train.keep=1                    train.keep=1 cannot be; type a whole number from 2
train=5                         train=5
seed=-1                         seed=-1 cannot be; type a whole number from 0
seed=9223372036854775808        seed=9223372036854775808 cannot be
seed=1.5                        seed=1.5
optim.lr=nan                    optim.lr=nan is not a finite number
optim.lr=-inf                   optim.lr=-inf is not a finite number
optim.lr=1e999                  optim.lr=inf is not a finite number
optim.lr=-0.1                   optim.lr=-0.1 cannot be; type a number above 0
optim.lr=0                      optim.lr=0 cannot be
optim.lr=fast                   optim.lr='fast' is not of type float
optim.lr=true                   optim.lr=true is not of type float
optim.lr=null                   optim.lr=null is not of type float
optim.momentum=1                optim.momentum=1 cannot be
optim.weight_decay=-1           optim.weight_decay=-1 cannot be
optim.nesterov=3                optim.nesterov=3 is not of type bool
optim.groups=3                  optim.groups=3 cannot be; type patterns and settings: '+optim.groups={*.bias:{lr:1}}'
optim.groups={*.bias:{lr:1}}    optim.groups.*.bias: no such key; to add a pattern there, type '+optim.groups={…}'
+optim.groups={"*":{lr:1}}      +optim.groups={"*":{lr:1}}: this cannot be read; leave out the quotes around keys in braces: {a:1}
+optim.groups={*:3}             optim.groups={'*': 3} cannot be; type patterns and settings
+optim.groups={*:{lrr:1}}       optim.groups.*.lrr: launcher.train.optim.sgd takes no such setting; did you mean lr?
+optim.groups={*:{betas:1}}     optim.groups.*.betas: launcher.train.optim.sgd takes no such setting; it takes lr, momentum, nesterov
+optim.groups={*:{lr:0}}        optim.groups.*.lr=0 cannot be; type a number above 0
+optim.groups={*:{lr:nan}}      optim.groups.*.lr=nan is not a finite number
+optim.groups={*:{nesterov:1}}  optim.groups.*.nesterov=1 cannot be; type a value of type bool
schedule.warmup=2               schedule.warmup=2 cannot be; type a fraction from 0 to 1
schedule.warmup=nan             schedule.warmup=nan is not a finite number
schedule.final=-1               schedule.final=-1 cannot be
task.label_smoothing=1          task.label_smoothing=1 cannot be
strategy.bucket_mb=0            strategy.bucket_mb=0 cannot be
strategy.bucket_mb=big          strategy.bucket_mb='big' is not of type int
model.width=1.5                 model.width=1.5 is not of type int
+data.samples=few               data.samples='few' is not of type int
loader.fail_at=few              loader.fail_at='few' is not of type int | None
cluster.nodes=2                 cluster.nodes=2: cluster=local is this one machine; type cluster.nodes=1
cluster.nodes=auto              cluster.nodes='auto' is not of type int
cluster.processes_per_node=0    cluster.processes_per_node=0 cannot be; type auto or a whole number from 1
cluster.processes_per_node=-2   cluster.processes_per_node=-2 cannot be
cluster.processes_per_node=all  cluster.processes_per_node=all cannot be
cluster.processes_per_node=3    train.batch_size=64 is not divisible by 3 processes x train.accumulate=1; type train.batch_size=63
cluster.device=gpu              cluster.device=gpu cannot be; type one of auto, cpu, cuda, xpu, mps
cluster.trusted_devices=['']      cluster.trusted_devices: '' names no device; type names
cluster.max_restarts=-1         cluster.max_restarts=-1 cannot be; type a whole number from 0
resume=yes                      resume=yes cannot be; type auto or never
runs_mode=shared                runs_mode=shared cannot be; type private, or group for a run that the group of runs_dir may read"""

SYNTAX = (
    ("train.epochs", "train.epochs", UNREADABLE),
    ("name=a=b", "name=a=b", UNREADABLE),
    ("optim.lr=[0.1", "optim.lr=[0.1", UNREADABLE),
    ("optim.lr='0.1", "optim.lr=", UNREADABLE),
    ("name=${", "name=${", UNREADABLE),
    ("name=ä", "name=ä", UNREADABLE),
    ("seed=1\nname=x", "seed=1", UNREADABLE),
    ("model..width=1", "model..width=1", UNREADABLE),
    ("=5", "'=5' names no key; type key=value"),
    ("", "'' names no key"),
    ("++", "'++' names no key"),
    ("optim.lr=0.1,0.2", "optim.lr=0.1,0.2: several values for one run; add -m"),
    ("optim.lr=range(1,3)", "optim.lr=range(1,3): several values for one run; add -m"),
    ("name=${nope}", "name: Interpolation key 'nope' not found"),
    ("name=${name}", "name: Recursive interpolation"),
    ("name=${oc.env:LAUNCHER_NOT_SET}", "name:", "LAUNCHER_NOT_SET"),
    ("name=${shell:ls}", "name: Unsupported interpolation type shell"),
    ("optim.lr=${oc.decode:'[1'}", "optim.lr:"),
    ("optim.lr=${train}", "optim.lr="),
    ("name=???", "name has no value and needs one"),
    ("cluster=???", "cluster"),
    ("--multrun", "--multrun: no such option; did you mean --multirun?"),
    ("--experimental-rerun=x.pkl", "--experimental-rerun: no such option"),
    ("--resolve", "--resolve goes with --cfg; type --cfg job --resolve"),
    ("--cfg=jobb", "--cfg needs one of job, hydra, all"),
    ("--cfg", "--cfg needs one of job, hydra, all"),
    ("--config-name=nope", "nope"),
    ("--info=nope", "--info needs one of all, config"),
)

NAMES = (
    *((f"{key}={value}", NAME) for key in ("name", "id") for value in ("'a b'", "a/b", "../x", "..", ".x", "-x", LONG, "''")),
    *((f"name='{value}'", NAME) for value in ("a;b", "$(touch x)", "`touch x`", "%x", "a\nb", "a\tb", "é", "a\0b", "a|b", "~", "*")),
    ('name="a\'b"', NAME),
    ("name=[a]", "name=['a'] cannot name"),
    ("name=null", "name=null cannot name"),
    ("runs_dir=''", "runs_dir='' is no path"),
    ("runs_dir='a\nb'", "runs_dir or the working directory", "line break"),
    ("runs_dir='a\0b'", "runs_dir="),
)


def _table(text: str) -> list[tuple[str, ...]]:
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines()]


ROWS = [*_table(KEYS), *_table(VALUES), *SYNTAX, *NAMES]


@pytest.mark.parametrize("row", ROWS, ids=[ascii(row[0])[1:-1][:40] for row in ROWS])
def test_a_bad_override_is_one_line_and_leaves_nothing(
    row: tuple[str, ...], command: Command, toy_words: tuple[str, ...], tmp_path: Path
) -> None:
    refused(command(*toy_words, row[0]), 2, *row[1:])
    assert list(tmp_path.iterdir()) == []


PAIRS = (
    (("model=timm", "model.options.depth=3"), "model.options.depth: no such key; to add it there, type +model.options.depth=…"),
    (("optim=adamw", "optim.betas=[2,0.9]"), "optim.betas=[2, 0.9] cannot be; type two numbers"),
    (("optim=adamw", "optim.betas=[nan,0.9]"), "optim.betas[0]=nan is not a finite number"),
    (("optim=adamw", "optim.eps=-1"), "optim.eps=-1 cannot be"),
    (("optim=adamw", "optim.eps=[null,1e-3]"), "optim.eps=[None, 0.001] is not of type float"),
    (("optim=adafactor", "optim.eps=[0.1,-1]"), "optim.eps=[0.1, -1] cannot be; type a number above 0", "for Adafactor [null,1e-3]"),
    (("optim=adafactor", "optim.beta2_decay=0.8"), "optim.beta2_decay=0.8 cannot be; type a number up to 0"),
    (("optim=lars", "optim.eta=0"), "optim.eta=0 cannot be; type a number above 0, for example 1e-3"),
    (("optim=adafactor", "optim.d=0.5"), "optim.d=0.5 cannot be; type a number from 1"),
    (("schedule=onecycle", "schedule.peak=1.5"), "schedule.peak=1.5 cannot be; type a fraction from 0 to 1"),
    (("train.batch_size=63", "cluster.processes_per_node=2"), "train.batch_size=63 is not divisible by 2 processes", "=64"),
    (("train.on_bad=skip", "train.spike=5"), "train.spike with train.on_bad=skip cannot be", "type train.on_bad=rollback"),
    (("train.batch_size=1", "train.accumulate=2"), "train.batch_size=1 is not divisible", "type train.batch_size=2"),
    (("--config-dir", "/nonexistent"), "/nonexistent"),
    (("--resolve", "--cfg", "jobb"), "--cfg needs one of job, hydra, all"),
)


@pytest.mark.parametrize("row", PAIRS, ids=lambda row: " ".join(row[0]))
def test_overrides_that_do_not_go_together(row: tuple[tuple[str, ...], str], command: Command, toy_words: tuple[str, ...]) -> None:
    refused(command(*toy_words, *row[0]), 2, *row[1:])


def test_a_cuda_device_is_refused_where_there_is_none(
    command: Command, toy_words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    refused(
        command(*toy_words, "cluster.device=cuda"), 2, "cluster.device=cuda: this machine shows no CUDA device; type cluster.device=cpu"
    )
