"""What a process of four holds of a model under fsdp: a quarter, by torch's own accounting."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import said_by

MOST = 0.27


def accounted(home: Path, world: int) -> list[dict[str, int]]:
    """Of each process."""
    program, meeting = Path(__file__).with_name("accounted.py"), home / f"world of {world}"
    return said_by(home, [[str(program), str(rank), str(world), str(meeting)] for rank in range(world)])


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_each_of_four_holds_a_quarter_and_little_more_at_its_peak(tmp_path: Path) -> None:
    (one,) = accounted(tmp_path, 1)
    for rank, each in enumerate(accounted(tmp_path, 4)):
        shares = {kind: each[kind] / one[kind] for kind in one}
        shown = ", ".join(f"{kind} {share:.3f}" for kind, share in shares.items())
        print(f"rank {rank} of 4, of one process's bytes: {shown}")
        assert max(shares.values()) <= MOST
        assert shares["held"] >= 0.25
