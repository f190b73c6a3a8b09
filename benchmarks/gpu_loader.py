"""The row of `make gpu` that needs batches of loader workers."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.gpu_rows import row


@row("batches of loader workers are whole on a device that is busy", 90, on_cpu=True)
def workers(device: str) -> str:
    """Each is compared when the device has done other work meanwhile, and memory of those before it was given away."""
    import torch

    from benchmarks.pictures import Pictures, draw
    from data.workers import Workers

    folder = Path("pictures")
    folder.mkdir()
    draw(folder, "jpeg", 128, 96)

    def opened(count: int, on: str) -> Any:
        loader = Workers(Pictures(str(folder), 80), batch_size=16, accumulate=1, seed=0, num_workers=count, val=0, test=0)
        loader.open(SimpleNamespace(dp_rank=0, dp_size=1), torch.device(on))
        return loader

    alone, loader = opened(0, "cpu"), opened(2, device)
    square, waited, seen = torch.rand(2048 if device == "cuda" else 64, 2048 if device == "cuda" else 64, device=device), 0.0, 0
    for epoch in range(4):
        wanted, found = alone.steps(epoch), loader.steps(epoch)
        for images, labels in wanted:
            begin = time.perf_counter()
            there, numbers = next(found)
            waited += time.perf_counter() - begin
            for _ in range(20):
                square = (square @ square).clamp(0, 1)
            changed = there * 2  # what a model would do with it, behind all that
            assert torch.equal(changed.cpu(), images * 2), f"images of epoch {epoch}"
            assert torch.equal(numbers.cpu(), labels), f"labels of epoch {epoch}"
            seen += 1
    loader.close()
    return f"{seen} batches equal to the bit; waited {1000 * waited / seen:.2f} ms for each"
