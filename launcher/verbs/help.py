"""`--help`: verbs, groups with their choices, examples. Read from conf/ by name, so that it costs no import."""

from __future__ import annotations

from launcher import CONF, __version__

_VERBS = """\
  run           train here, or submit; the default verb
  render        print the job script that run would start; write nothing
  plan          print the frozen plan as JSON; write nothing
  resume RUN    continue from the newest good checkpoint; with cluster.processes_per_node=… in another world
  status [RUN]  a table of runs, or one of them
  logs RUN      print a rank's log (-f to follow, --rank R, --attempt N)
  why RUN       what became of a run: why it failed, waits or was stopped, and what to type next
  cancel RUN    end it: a batch job is never requeued, a run here saves and stops
  collect SWEEP final metrics by override, best first, as a table, CSV and JSON
  plot RUN…     the curves of runs, or of a sweep, as one PNG (to=DIR or FILE.png)
  evaluate RUN  look closely at a done run: intervals, classes, calibration, mistakes; a page, PNGs, JSON (split=…, data=…, cluster=…)
  compare RUN RUN…  what differs between runs, their metrics side by side, and tested where predictions are (to=DIR)
  export RUN    its model as one folder that needs none of its code (to=DIR, checkpoint=best, hf=true, encrypt=true)
  predict EXPORT INPUT…  what an export says of pictures, rows or texts (to=FILE.csv, top=5, unsure=0.5, draw=DIR, --strict)
  serve EXPORT  the same over HTTP on this machine, with a page to try it (port=8000)
  drill KIND    preempt, timeout, nodefail or crash a short batch run of this config; see it go on
  tensorboard [RUN]   open TensorBoard on localhost
  data          show what would be trained on: splits, classes, repeated samples, a picture of a batch, samples a second
  bench device  time an update on the CPU and on each device here: memory, energy, cost (price=cpu:0.10,…), and which to use
  doctor        examine the machines that run would train on; name the bad ones"""

_EXAMPLES = """\
  python -m launcher +exp=cifar
  python -m launcher +exp=cifar cluster.processes_per_node=2 train.epochs=5
  python -m launcher -m +exp=cifar optim.lr=0.1,0.2,0.4"""

_GROUPS = ("model", "data", "loader", "optim", "schedule", "strategy", "cluster", "task", "exp")


def help_text() -> str:
    groups = "\n".join(f"  {group:<10}{', '.join(_choices(group)) or '-'}" for group in _GROUPS)
    return f"""launcher {__version__}: one config, one frozen plan, one torchrun command or job script

usage: python -m launcher [VERB] [+exp=NAME] [group=choice] [key=value] [Hydra's flags]

verbs
{_VERBS}

groups and their choices (conf/)
{groups}

examples
{chr(10).join([_EXAMPLES, *_of_clusters()])}

RUN is a path, or of this project's runs an id, name/id or a name (its newest run); with --all, of every project's.
Every key: --cfg job. Hydra's own flags: --hydra-help.
Exit codes: 0 done, 1 training failed, 2 bad command or config, 3 run directory or checkpoint,
4 cluster refused, 75 stopped and resumable, 130 interrupted (143 by SIGTERM, 129 by SIGHUP)."""


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _of_clusters() -> list[str]:
    """The command with which the yaml of a cluster begins, where it has one."""
    heads = (path.read_text(encoding="utf-8").partition("\n")[0] for path in sorted((CONF / "cluster").glob("*.yaml")))
    return [f"  {head[head.index('python -m launcher') :]}" for head in heads if head.startswith("#") and "python -m launcher" in head]
