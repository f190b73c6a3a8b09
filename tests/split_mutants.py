"""`make mutants`: what keeps a split model equal to one process is taken out in a copy of the tree, and a test has to turn red there.

As tests/guards_out.py does it for the guards of docs/security.md.
"""

from __future__ import annotations

import sys

import guards_out
from guards import Cut, Guard

LOSSES = "test_split::its_losses_are_those_of_one_process"
MUTANTS = (
    ("the parts of a layer see the same batch",
     Cut("launcher/train/data_set.py", '"seed": config["seed"]}', '"seed": config["seed"] + mesh.tp}'), f"{LOSSES}[tp(2)]"),
    ("gradients are reduced with the last micro-batch",
     Cut("launcher/strategies/fsdp.py", "prepared.set_requires_gradient_sync(True)", "pass"),
     "test_split::micro_batches_and_a_norm_that_is_clipped_change_nothing"),
    ("gradients of norms are added up over the parts of a sequence",
     Cut("launcher/strategies/tp.py", "parameter.grad = parameter.grad.redistribute(placements=parameter.placements)", "pass"),
     f"{LOSSES}[tp(2)]"),
    ("a norm is a sum over pieces and no mean", Cut("launcher/train/norm.py", ".square().sum()  # pyright", ".square().mean()  # pyright"),
     f"{LOSSES}[fsdp(2)]"),
    ("a piece that several hold counts once", Cut("launcher/train/norm.py", "and piece.owner == rank]", "]"), f"{LOSSES}[hsdp(2x2)]"),
    ("what two stages share has the gradients of both",
     Cut("launcher/strategies/pipeline.py", "gradient += theirs", "pass"), f"{LOSSES}[pp(2)]"),
    ("gradients of a stage are a mean over its replicas",
     Cut("launcher/strategies/crossing.py", "flat /= dist.get_world_size(group)", "pass"), f"{LOSSES}[pp x ddp(2x2)]"),
    ("a stage takes what the one before gave",
     Cut("launcher/strategies/stages.py", "forward(received, *given[1:]", "forward(received * 1.01, *given[1:]"), f"{LOSSES}[pp(2)]"),
    ("keys and values have the gradients of all parts of a sequence",
     Cut("launcher/strategies/context.py", "dist.reduce_scatter_tensor(part, whole.contiguous().flatten(0, 1), group=ctx.group)",
         "part.copy_(whole[dist.get_rank(ctx.group)])"), f"{LOSSES}[cp(2)]"),
    ("weights of a part of a sequence are those of a part",
     Cut("launcher/train/loss.py", "shares.batch_size * shares.parts / total", "shares.batch_size / total"),
     "test_context::what_all_strategies_share_goes_with_it"),
    ("what an evaluation has gathered is let go",
     Cut("launcher/train/step.py", "self._strategy.release(self._prepared)", "pass"), f"{LOSSES}[zero1(2)]"),
)  # fmt: skip

GUARDS = [Guard(number, what, (cut,), (test,)) for number, (what, cut, test) in enumerate(MUTANTS, 1)]

if __name__ == "__main__":
    guards_out.GUARDS = GUARDS
    guards_out.COPIES, guards_out.CASE_SECONDS, guards_out.MOST_BYTES = 1, 200, 64 << 30
    sys.exit(guards_out.main(sys.argv[1:]))
