"""The data set of a config: one object, or one for each split; and its loader. data/loader.py says what both are."""

from __future__ import annotations

import contextlib
import errno
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from launcher.config import targets
from launcher.errors import ConfigError, RunError

_TYPED = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
"""What a path gives that cannot be meant."""


def build(node: Mapping[str, Any]) -> Any:
    """What the node's class makes; where that takes a `split` which the node does not say, a dict of one for each split that there is.
    Raises ConfigError."""
    if not _is_by_split(node):
        return targets.build(node)
    made = {split: _of_split(node, split) for split in ("train", "val", "test")}
    return {split: data for split, data in made.items() if data is not None}


def opened(config: Mapping[str, Any], mesh: Any, device: Any) -> tuple[Any, Any]:
    """What says of all splits what there is to say, and the loader, open for a share of the batches. Raises ConfigError or RunError."""
    train = config["train"]
    shares = {"batch_size": train["batch_size"], "accumulate": train["accumulate"], "seed": config["seed"]}
    with in_one_line():
        data = build(config["data"])
        loader = targets.build(config["loader"], data=data, **shares)
        loader.open(mesh, device)
    if loader.steps_per_epoch < 1:
        raise ConfigError(f"train.batch_size={train['batch_size']} is more than the {loader.samples} training samples; type a smaller one")
    return data["train"] if isinstance(data, dict) else data, loader


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """What a data set says of its files is for the user: a ConfigError or RunError."""
    try:
        yield
    except (ValueError, OSError) as error:
        kind = RunError if exit_code(error) == RunError.exit_code else ConfigError
        raise kind(user_line(error)) from error


def user_line(error: Exception) -> str:
    """A data module's ValueError or OSError as the user's line."""
    text = str(error) or type(error).__name__
    return text if text.startswith(("data", "loader.augment")) else f"data: {text}"


def exit_code(error: Exception) -> int:
    """A disk that is full, a file system that went away or a network that does not answer is no mistake in the config."""
    is_of_machine = isinstance(error, ConnectionError | TimeoutError) or (
        isinstance(error, OSError) and error.errno is not None and error.errno not in _TYPED
    )
    return RunError.exit_code if is_of_machine else ConfigError.exit_code


def first(node: Mapping[str, Any]) -> Any:
    """The object that says what there is to say of all: the only one, or that for train. Raises ConfigError."""
    return targets.build(node, **({"split": "train"} if _is_by_split(node) else {}))


def _is_by_split(node: Mapping[str, Any]) -> bool:
    try:
        known = inspect.signature(targets.imported(node)).parameters
    except (TypeError, ValueError):  # of a class that is written in C nobody knows them
        return False
    return "split" in known and "split" not in node


def _of_split(node: Mapping[str, Any], split: str) -> Any:
    """None where there is no such split: the constructor's ValueError or KeyError is its name, or has it in quotes. Raises ConfigError."""
    try:
        return targets.build(node, split=split)
    except (ConfigError, KeyError) as error:
        cause = error.__cause__ or error
        if split == "train" or not isinstance(cause, ValueError | KeyError) or not re.search(rf"^{split}$|['\"]{split}['\"]", str(cause)):
            raise
        return None
