"""Samples per second of loader=workers over shards beside the `webdataset` package and `datasets`' streaming, on the same shards.

    python -m pip install webdataset                      # into an environment of your own; `datasets` is the extra of that name
    python benchmarks/streaming.py                        # some minutes; --only tars, --only parquet

Both decode by Pillow, cut out, mirror and standardise by the same `Picture`, make batches of one size with as many workers of one thread,
and shuffle within as many samples: our window, their buffer. Contenders take turns, in blocks of some batches and in an order that rotates:
A, ours; B, theirs, without end, so that nothing is paid for the ends of epochs; B', theirs again. B'/B is what the measurement itself
cannot tell apart.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import random
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.utils.data import DataLoader

from benchmarks import measure
from benchmarks.pictures import draw
from data.parquet import Parquet
from data.vision.picture import Picture
from data.webdataset import WebDataset
from data.workers import Workers

WARM_UP_ROUNDS = 2
CONTENDERS = ("A", "B", "B'")
SHARDS = 8


def ours(kind: Any, folder: Path, options: argparse.Namespace) -> Iterator[Any]:
    data = kind(str(folder), size=options.picture, val=None, test=None, cache=str(folder.parent / "cache"))
    loader = Workers(
        data, batch_size=options.batch_size, accumulate=1, seed=0, val=0, test=0, num_workers=options.workers, window=options.window
    )
    loader.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    with contextlib.closing(loader):
        epoch = 0
        while True:
            yield from loader.steps(epoch)
            epoch += 1


def tars_of_theirs(folder: Path, options: argparse.Namespace) -> Iterator[Any]:
    import webdataset  # pyright: ignore[reportMissingImports] - of whoever runs this

    names = [str(path) for path in sorted(folder.glob("*.tar"))]
    made = functools.partial(of_tar, Picture(options.picture, 0.35, True))
    stages = webdataset.DataPipeline(
        webdataset.ResampledShards(names),
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(options.window // options.workers),
        webdataset.to_tuple("jpg", "cls"),
        webdataset.map(made),
        webdataset.batched(options.batch_size, collation_fn=torch.utils.data.default_collate),
    )
    yield from DataLoader(stages, None, num_workers=options.workers, persistent_workers=True, prefetch_factor=2, worker_init_fn=one_thread)


def parquet_of_theirs(folder: Path, options: argparse.Namespace) -> Iterator[Any]:
    import datasets

    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    # Their own decoding makes the whole picture; as bytes it is decoded by ours, no larger than is needed. Behind their `map`, which makes
    # columns of what it is given back, it was 51 samples a second.
    stream: Any = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    stream = stream.cast_column("image", datasets.Image(decode=False)).shuffle(buffer_size=options.window // options.workers).repeat(None)
    yield from DataLoader(
        stream,
        options.batch_size,
        num_workers=options.workers,
        persistent_workers=True,
        prefetch_factor=2,
        worker_init_fn=one_thread,
        multiprocessing_context="spawn",  # forked, they would inherit locks that Arrow's threads may hold
        collate_fn=functools.partial(of_rows, Picture(options.picture, 0.35, True)),
    )


def of_tar(picture: Picture, sample: tuple[bytes, bytes]) -> tuple[torch.Tensor, int]:
    return picture.of(io.BytesIO(sample[0])), int(sample[1])


def of_rows(picture: Picture, rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.stack([picture.of(io.BytesIO(row["image"]["bytes"])) for row in rows])
    return images, torch.tensor([row["label"] for row in rows])


def one_thread(number: int) -> None:
    torch.set_num_threads(1)
    random.seed(number)


def packed(folder: Path, options: argparse.Namespace) -> None:
    """The same pictures in tars and in parquet, as many in each shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "pictures").mkdir()
    draw(folder / "pictures", "jpeg", options.count, options.size)
    paths = sorted((folder / "pictures").iterdir())
    for kind in ("tars", "parquet"):
        (folder / kind).mkdir()
    for shard in range(SHARDS):
        rows = [{"image": {"bytes": path.read_bytes(), "path": path.name}, "label": int(path.stem) % 10} for path in paths[shard::SHARDS]]
        pq.write_table(pa.Table.from_pylist(rows), folder / "parquet" / f"train-{shard:03}.parquet", row_group_size=100)
        with tarfile.open(folder / "tars" / f"train-{shard:03}.tar", "w") as tar:
            for number, row in enumerate(rows):
                for end, content in (("jpg", row["image"]["bytes"]), ("cls", str(row["label"]).encode())):
                    entry = tarfile.TarInfo(f"{number:06}.{end}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def measured(contenders: dict[str, Iterator[Any]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each block."""
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(options.rounds + WARM_UP_ROUNDS):
        for name in measure.rotated(CONTENDERS, number):
            for _ in range(2 * options.workers):  # those that were made while others were measured
                next(contenders[name])
            begin = time.perf_counter()
            for _ in range(options.block):
                images, _ = next(contenders[name])
                images.sum()  # one that nobody looks at costs less than it does
            found[name].append(time.perf_counter() - begin)
            time.sleep(options.settle)
    return {name: blocks[WARM_UP_ROUNDS:] for name, blocks in found.items()}


def told(kind: str, labels: tuple[str, str], found: dict[str, list[float]], options: argparse.Namespace) -> None:
    rows = [(kind, "samples/s (median)", "samples/s over B [95 %]")]
    for name, label in zip(CONTENDERS, (*labels, f"{labels[1]} again"), strict=True):
        speed = measure.ratios(found["B"], found[name]).as_ratio() if name != "B" else "1"
        rows.append((f"{name:2} {label}", f"{options.block * options.batch_size / statistics.median(found[name]):.0f}", speed))
    print(measure.table(rows), end="\n\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", choices=("tars", "parquet"))
    parser.add_argument("--count", type=int, default=4000, help="pictures")
    parser.add_argument("--size", type=int, default=128, help="pixels of a side")
    parser.add_argument("--picture", type=int, default=64, help="pixels of a side of what a model is given")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--window", type=int, default=1000, help="samples that are shuffled together")
    parser.add_argument("--rounds", type=int, default=20, help="of one block of each contender")
    parser.add_argument("--block", type=int, default=20, help="batches in a block")
    parser.add_argument("--settle", type=float, default=0.3, help="seconds behind a block, for what is made ahead")
    options = parser.parse_args()
    before = measure.load()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    pairs: dict[str, tuple[Any, Callable[..., Iterator[Any]], tuple[str, str], str]] = {
        "tars": (WebDataset, tars_of_theirs, ("data=webdataset", "webdataset"), "webdataset"),
        "parquet": (Parquet, parquet_of_theirs, ("data=parquet", "datasets, streaming"), "datasets"),
    }
    with tempfile.TemporaryDirectory() as folder:
        packed(Path(folder), options)
        print(f"{options.count} JPEG of {options.size} x {options.size} in {SHARDS} shards, {options.picture} pixels, batches of", end=" ")
        print(f"{options.batch_size}, {options.workers} workers each, n={options.rounds} rounds of {options.block} batches each")
        for kind, (kind_of_ours, theirs, labels, package) in pairs.items():
            if options.only in (None, kind):
                place = Path(folder) / kind
                contenders = {name: ours(kind_of_ours, place, options) if name == "A" else theirs(place, options) for name in CONTENDERS}
                for each in contenders.values():
                    next(each)
                found = measured(contenders, options)
                cast("Generator[Any, None, None]", contenders["A"]).close()
                told(kind, labels, found, options)
                print(measure.one_line(measure.versions("torch", "pillow", package)))
    print(f"{measure.one_line(measure.machine())}; load before {before}, after {measure.load()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
