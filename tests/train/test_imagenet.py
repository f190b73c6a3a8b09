"""`+exp=imagenet` on a generated folder and on shards of the same pictures, shrunk: it trains, with workers, by one process and by two."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from processes import finish, losses

SHRUNK = ("model=resnet18", "model.width=8", "model.groups=4", "model.num_classes=3", "data.size=32")
SHORT = ("train.batch_size=12", "train.steps=8", "train.log_every=1", "train.precision=fp32", "loader.num_workers=1", "optim.lr=0.02")
COLOURS = {"boats": (20, 40, 220), "cats": (220, 60, 20), "dogs": (40, 200, 40)}


def generated(root: Path) -> None:
    """36 pictures to train on and 9 to evaluate on, in folders and in shards; both in the order of their names."""
    for split, count in (("train", 12), ("val", 3)):
        with tarfile.open(root / f"{split}-0.tar", "w") as shard:
            for number, (name, colour) in enumerate(COLOURS.items()):
                folder = root / "folders" / split / name
                folder.mkdir(parents=True)
                for each in range(count):
                    path, file = folder / f"{each:02d}.png", io.BytesIO()
                    Image.new("RGB", (30, 24), tuple(max(0, part - 9 * each) for part in colour)).save(file, "png")
                    path.write_bytes(file.getvalue())
                    for kind, content in (("png", file.getvalue()), ("cls", str(number).encode())):
                        entry = tarfile.TarInfo(f"{name}-{each:02d}.{kind}")
                        entry.size = len(content)
                        shard.addfile(entry, io.BytesIO(content))


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_folders_and_shards_train_by_one_process_and_by_two(tmp_path: Path) -> None:
    generated(tmp_path)
    folders, shards = (f"data.root={tmp_path / 'folders'}", "data.test=0"), ("data=webdataset", f"data.root={tmp_path}", "loader.window=18")
    found = {}
    for name, more in (
        ("folders", folders),
        ("shards", shards),
        ("two shards", (*shards, "cluster.processes_per_node=2")),
    ):
        own = ("loader.test=0", f"runs_dir={tmp_path / 'runs'}", f"id={name.replace(' ', '-')}")
        done = finish(tmp_path, ["+exp=imagenet", *SHRUNK, *SHORT, *more, *own], timeout=100, LAUNCHER_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        run = tmp_path / "runs" / "imagenet" / name.replace(" ", "-")
        summary = json.loads((run / "summary.json").read_text())
        found[name] = losses(run)
        assert found[name].keys() == {*range(1, 9)}
        assert summary["val_loss"] < 10
    assert found["two shards"] == pytest.approx(found["shards"], rel=1e-4)
    assert found["shards"] != found["folders"], "another order"
