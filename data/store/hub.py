"""Files of one pinned revision of a Hugging Face dataset, checked against the sha256 they were pinned with."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from data.store import owner
from data.store.files import first_line, notice, one_at_a_time, os_error, sha256_file

PATIENCE = 8.0
"""Seconds until a hub that does not answer is taken for no network. A resolver without a route can take minutes."""


def download(repo: str, revision: str, files: Mapping[str, str], into: Path) -> Path:
    """A directory that holds `files` (name in the repository -> sha256): `into`, or the hub's own cache where they are there.

    The hub shows its progress bar on stderr and renames each file into place when it is whole; one process downloads and
    others wait. `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` are the hub's and work as everywhere.

    Raises ConnectionError where the hub cannot be reached (within seconds), FileNotFoundError where it answers that it has no
    such thing, ValueError where what came is not what was pinned, OSError where it was cut or cannot be written.
    """
    if os.path.lexists(into) and owner.fault(into):
        into = owner.mine_beside(into)
    if all(_is(into / name, sha256) for name, sha256 in files.items()):
        return into
    found = _in_hub_cache(repo, revision, files)
    if found is not None:
        return found
    _probe(repo, revision, next(iter(files)))
    with one_at_a_time(into.with_name(f"{into.name}.lock"), f"downloading {repo} into {into}"):
        try:
            for name, sha256 in files.items():
                _fetch(repo, revision, name, sha256, into)
        finally:
            # The hub's own notes and what it had half-written; nothing in there is wanted once the files are checked.
            shutil.rmtree(into / ".cache", ignore_errors=True)
    return into


def _fetch(repo: str, revision: str, name: str, sha256: str, into: Path) -> None:
    from huggingface_hub import hf_hub_download

    path = into / name
    if _is(path, sha256):
        return
    path.unlink(missing_ok=True)
    notice(f"Downloading {name} of {repo} into {into}")  # the bar itself is for terminals only
    try:
        hf_hub_download(repo, name, repo_type="dataset", revision=revision, local_dir=into, force_download=True)
    except Exception as error:  # a dozen kinds over the hub's versions and transports
        path.unlink(missing_ok=True)
        why = f"{repo}: downloading {name} into {into} failed ({first_line(error)})"
        if isinstance(error, OSError) and error.errno is not None:
            raise os_error(error.errno, f"{why}; free some space there, or set data.cache= to another directory") from error
        raise OSError(f"{why}; run the same command again, or point data.root at a copy") from error
    got = sha256_file(path)
    if got != sha256:
        path.unlink()
        raise ValueError(
            f"{repo}: {name} of revision {revision[:12]} came with sha256 {got[:16]}…, pinned is {sha256[:16]}…; the file is "
            "deleted. Run the same command again; if it stays, something between here and the hub changes the data: point "
            "data.root at a copy that you trust"
        )


def _in_hub_cache(repo: str, revision: str, files: Mapping[str, str]) -> Path | None:
    """The snapshot in the hub's own cache, where another program has downloaded this revision already."""
    from huggingface_hub import try_to_load_from_cache

    paths = {name: try_to_load_from_cache(repo, name, revision=revision, repo_type="dataset") for name in files}
    if not all(isinstance(path, str) and _is(Path(path), files[name]) for name, path in paths.items()):
        return None
    name, path = next(iter(paths.items()))
    return Path(str(path)).parents[len(Path(name).parts) - 1]


def _probe(repo: str, revision: str, name: str) -> None:
    """One HEAD request without retries: the hub's own download takes 23 s to find that there is no network.

    It runs beside, in a thread that is left behind when it does not return, because no time limit reaches the resolver.
    """
    outcome: list[Exception | None] = []
    thread = threading.Thread(target=lambda: outcome.append(_head(repo, revision, name)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    error = outcome[0] if outcome else ConnectionError(f"no answer in {PATIENCE:.0f} s")
    if error is not None:
        raise error


def _head(repo: str, revision: str, name: str) -> Exception | None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    url = hf_hub_url(repo, name, repo_type="dataset", revision=revision)
    try:
        get_hf_file_metadata(url, timeout=PATIENCE)
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        refusal = FileNotFoundError(f"{url} is not there ({first_line(error)}); check HF_ENDPOINT, or point data.root at a copy")
        refusal.__cause__ = error
        return refusal
    except Exception as error:  # refused, unresolved, timed out, proxy, certificate, hub down, HF_HUB_OFFLINE
        unreachable = ConnectionError(first_line(error))
        unreachable.__cause__ = error
        return unreachable
    return None


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256
