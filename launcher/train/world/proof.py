"""That at the other end of every connection is a process of this run.

A gloo listener takes whoever comes first with a small number that is easy to guess (gloo/transport/tcp/listener.cc), in the place of the
rank that was meant: any account of this machine can, and between nodes anybody on the network. torch's wheels are built without gloo's
TLS. So the first thing that goes over the connections of a group is a word that only who has the key can say, to each about itself; a
connection stays what it is from then on. Nothing that came before it is believed.
"""

from __future__ import annotations

import hmac
from typing import Any

import torch
import torch.distributed as dist

from launcher.errors import TrainingFailed
from launcher.train.world import meeting
from launcher.train.world.patience import MEETING


def prove(group: Any, name: str) -> None:
    """Call on every rank of a gloo group, before anything else is said in it; `name`: another for each group of an attempt.

    Raises TrainingFailed where a rank is not of this run.
    """
    rank, world, key = dist.get_rank(group), dist.get_world_size(group), meeting.secret()
    mine = torch.stack([_word(key, name, rank, other) for other in range(world)])
    theirs = torch.zeros_like(mine)
    work: Any = dist.all_to_all_single(theirs, mine, group=group, async_op=True)
    work.wait(MEETING)
    strangers = [other for other in range(world) if not torch.equal(theirs[other], _word(key, name, other, rank))]
    if strangers:
        raise TrainingFailed(
            f"somebody who is not of this run has connected to rank {rank} in the place of rank {', '.join(map(str, strangers))}; nothing "
            "was taken from there; resume the run"
        )


def _word(key: bytes, name: str, speaker: int, listener: int) -> torch.Tensor:
    digest = hmac.digest(hmac.digest(key, b"proof", "sha256"), f"{name}/{speaker}/{listener}".encode(), "sha256")
    return torch.frombuffer(bytearray(digest), dtype=torch.uint8)
