"""Memory that batches come in is used again, and never while somebody has something of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.processes import parcel
from data.processes.slots import Slot, Slots


def given(slots: Slots, value: Any) -> tuple[Slot, Any]:
    slot = slots.lend()
    parcel.write(slot.descriptor, value)
    return slot, slot.unpack(slots.take_back)


def test_memory_is_taken_again_when_the_last_view_of_a_batch_is_gone() -> None:
    slots = Slots(2)
    first, batch = given(slots, {"image": torch.ones(1000), "label": np.arange(5)})
    view = batch["image"][3:5]
    del batch
    second, other = given(slots, torch.full((1000,), 2.0))
    assert second is not first, "a view is left"
    assert view.tolist() == [1, 1]
    del view
    third, again = given(slots, torch.full((10,), 3.0))
    assert third is first
    assert (again.tolist(), other.sum().item()) == ([3] * 10, 2000), "a smaller batch behind a larger one"
    del again
    assert given(slots, torch.arange(5000))[1].sum() == 5000 * 4999 // 2, "a larger one behind a smaller one"
    slots.close()


def test_what_has_no_tensor_leaves_its_memory_at_once() -> None:
    slots = Slots(2)
    first, batch = given(slots, ["text", 3])
    second, _ = given(slots, None)
    assert batch == ["text", 3]
    assert second is first
    slots.close()


def test_no_more_are_kept_than_asked_for_and_none_after_the_end() -> None:
    before, slots = len([*Path("/proc/self/fd").iterdir()]), Slots(1)
    lent = [given(slots, torch.ones(3)) for _ in range(4)]
    last = lent.pop()[1]
    lent.clear()
    assert len([*Path("/proc/self/fd").iterdir()]) == before + 4, "of one that is free, and of the last: its own, and its map's"
    slots.close()
    assert last.tolist() == [1, 1, 1]
    del last
    assert len([*Path("/proc/self/fd").iterdir()]) == before
