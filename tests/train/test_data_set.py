"""The data set of a config: one object, or one for each split that there is."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import ConfigError, RunError
from launcher.train import data_set

SETS = """
class Base:
    def __init__(self, split="train", more=None):
        if split == "val":
            {fault}
        self.split, self.more = split, more

class BySplit(Base):
    pass

class Whole:
    def __init__(self, more=1):
        self.more = more

def made(split):
    return Whole(split)
"""


def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str = "pass", **keys: Any) -> Any:
    module = f"sets_{abs(hash((tmp_path, fault)))}"
    (tmp_path / f"{module}.py").write_text(SETS.format(fault=fault))
    monkeypatch.syspath_prepend(tmp_path)
    return data_set.build({"_target_": f"{module}.{name}", **keys})


def test_who_takes_a_split_is_made_once_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build(tmp_path, monkeypatch, "BySplit", more=3)
    assert {split: (data.split, data.more) for split, data in made.items()} == {split: (split, 3) for split in ("train", "val", "test")}
    assert {split: data.more for split, data in build(tmp_path, monkeypatch, "made").items()} == {
        split: split for split in ("train", "val", "test")
    }


def test_who_does_not_or_was_told_which_is_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build(tmp_path, monkeypatch, "Whole").more == 1
    assert build(tmp_path, monkeypatch, "BySplit", split="test").split == "test"


@pytest.mark.parametrize("fault", ["raise ValueError(split)", "raise ValueError(f'no split {split!r}')", "{'train': 1}[split]"])
def test_a_split_that_is_refused_by_name_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    assert set(build(tmp_path, monkeypatch, "BySplit", fault)) == {"train", "test"}


@pytest.mark.parametrize("fault", ["raise ValueError('an invalid value in data/val.csv')", "raise FileNotFoundError('val')", "{}['b']"])
def test_any_other_fault_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    with pytest.raises((ConfigError, FileNotFoundError, KeyError)):
        build(tmp_path, monkeypatch, "BySplit", fault)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("data.length=0 cannot be"), ConfigError),
        (FileNotFoundError("data.root is not there"), ConfigError),
        (OSError("no picture"), ConfigError),
        *((OSError(number, "it"), ConfigError) for number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)),
        *(
            (OSError(number, "it"), RunError)
            for number in (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.EACCES)
        ),
        *((OSError(number, "it"), RunError) for number in (errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTUNREACH)),
        (TimeoutError("no answer"), RunError),
        (ConnectionError("the hub is down"), RunError),
    ],
    ids=repr,
)
def test_what_a_disk_or_a_network_fails_is_no_mistake_of_the_config(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises((ConfigError, RunError), match=r"^data") as failed, data_set.in_one_line():
        raise error
    assert type(failed.value) is kind
