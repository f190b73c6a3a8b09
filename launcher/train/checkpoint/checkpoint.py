"""Checkpoints on disk: a directory is complete and verified, or it is not a checkpoint.

    checkpoints/tmp.<attempt>/    shards of every rank, each fsynced by its writer
    checkpoints/step_000000400/   the same directory after: manifest with every sha256, fsync, rename, fsync of the parent
    checkpoints/tmp.step_…/       an old one on its way out

Files are bytes to this module (state.py knows what is in them), and manifest.py verifies them. Nothing is
ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from launcher.errors import CheckpointError, KeyFault, LaunchError, RunError
from launcher.rundir.claim import Claim
from launcher.train.checkpoint import crash
from launcher.train.checkpoint.manifest import (
    FORMAT,
    MANIFEST,
    SEALED,
    Checkpoint,
    bound,
    by_step,
    describe,
    directory_name,
    seal,
    verify,
)
from launcher.train.checkpoint.shares import shares
from launcher.train.guard.guard import BadNumbers
from launcher.train.world.ranks import Ranks
from launcher.trust import vault, writing

NO_DIRECTORIES = (*writing.NO_SYNC, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
"""What fsync of a directory, or opening it for that, answers where there is no such thing. A full or broken disk answers otherwise."""
NAMES_LOST = "after a loss of power the newest checkpoint may be missing"
BYTES_LOST = "after a loss of power the newest checkpoints may be torn, and the run goes on from an older one, if one is whole"

Content = Iterable[bytes | memoryview]
"""A file in pieces. Iterating may raise BadNumbers where what it holds is not worth saving.
What makes its bytes as it goes has `nbytes`; all others can be gone through twice."""


class CheckpointStore:
    """The checkpoints of one run. Every rank calls every method at the same step."""

    def __init__(
        self,
        path: Path,
        ranks: Ranks,
        claim: Claim,
        attempt: int,
        keep: int,
        before_commit: Callable[[], None] = lambda: None,
        examine: Callable[[Checkpoint, Iterable[str]], None] = Checkpoint.verify,
        key: bytes | None = None,
    ) -> None:
        """`before_commit`, on rank 0: puts on the disk what a checkpoint vouches for outside of itself. May raise OSError.
        `examine`: reads some of a checkpoint's files, all of each, and raises CheckpointError where one is not as it was written.
        `key`: files are encrypted with it; what is read says itself whether it is.
        """
        self.path = path
        self.keep = keep
        self._before_commit = before_commit
        self._examine = examine
        self._key = key
        self._ranks = ranks
        self._claim = claim
        self._temporary = path / f"tmp.{attempt:03d}"
        self._told = False
        if ranks.is_first:
            path.mkdir(mode=0o750, exist_ok=True)
            for left in path.glob("tmp.*"):  # of attempts that died while saving; we hold the run's lock
                shutil.rmtree(left, ignore_errors=True)

    def save(self, step: int, files: Mapping[str, Content], judged: float = math.inf, best: int | None = None) -> None:
        """Write this rank's files and commit everybody's; nothing where a good checkpoint of the step is there. Raises on every rank if it
        failed on one: RunError, or BadNumbers.

        `judged`: the last step whose numbers are known to be good. The newest checkpoint that is not after it outlives `keep` newer ones,
        or there would be nothing to go back to. So does that of the step `best`.
        """
        crash.here("before_save")
        if self._agree((lambda: self._make_room(step)) if self._ranks.is_first else None)[0] is False:
            return
        written = self._agree(lambda: {name: self._write(step, name, content) for name, content in files.items()})
        crash.here("shards_agreed")
        entries = {name: entry for part in written for name, entry in part.items()}
        manifest = {"format": FORMAT if self._key is None else SEALED, "step": step, "world": self._ranks.size, "files": entries}
        self._agree((lambda: self._commit(step, manifest, judged, best)) if self._ranks.is_first else None)
        crash.here("save_agreed")

    def load(self, say: Callable[[str], None], newest: float = math.inf) -> Checkpoint | None:
        """The newest checkpoint that verifies, the same on every rank; None where there never was one. Each rank reads a share of the
        files, so that each file is read once.

        Tells through `say`, on rank 0, which were passed over, and sets them aside, with those of a step after `newest`. Raises
        CheckpointError, on all ranks, when there are checkpoints and none is good, for starting over would throw a run away in silence; and
        where a rank cannot read what rank 0 reads well. Raises KeyFault, on all ranks, where one has not the key that the newest whole one
        was written with: that is no damage, and all stay where they are.
        """
        candidates = self._first(lambda: self._forget_after(newest))  # spoilt: nobody is to resume from later ones, whatever is before
        for step in candidates:
            found = self._judged(step)
            if isinstance(found, Checkpoint):
                if self._key is not None and not found.sealed and self._ranks.is_first:
                    say(f"warning: {directory_name(step)} is not encrypted, as train.encrypt was false when it was saved; the next are")
                self._first(lambda step=step: self._forget_after(step))
                return found
            if self._ranks.is_first:
                say(f"checkpoint {directory_name(step)} is damaged and passed over: {found}")
        if not candidates:
            return None
        raise CheckpointError(
            f"{self.path}: all {len(candidates)} checkpoints are damaged, and the run does not start over by itself; restore one, "
            "or type the run's command again with its id=… and resume=never"
        )

    def _forget_after(self, newest: float) -> list[int]:
        """The steps that are left: the names of later ones are needed again when training comes back to them."""
        for step, path in by_step(self.path):
            if step > newest:
                _set_aside(path)
        return [step for step, _ in by_step(self.path)]

    def _judged(self, step: int) -> Checkpoint | str:
        """A checkpoint, each file of which one rank found good, or what is wrong with it. Raises CheckpointError, on all ranks, where one
        rank alone finds something wrong: what is good is not to be passed over for a bad node."""
        told = self._first(lambda: _described(self.path / directory_name(step)))
        if isinstance(told, str):
            return told
        checkpoint = Checkpoint(**{**told, "path": Path(told["path"])})
        parts = shares({name: entry["bytes"] for name, entry in checkpoint.files.items()}, self._ranks.size)
        ours = parts[self._ranks.members.index(self._ranks.rank)]
        problems, keyless = zip(*self._ranks.gather(_key_or_problem(lambda: self._examine(checkpoint, ours))), strict=True)
        if fault := next(filter(None, keyless), ""):
            raise KeyFault(fault)
        unread = [name for part, problem in zip(parts, problems, strict=True) if problem for name in part]
        if not unread:
            return checkpoint
        if problem := problems[0] or self._first(lambda: _problem(lambda: self._examine(checkpoint, unread))):
            return problem
        rank, problem = next((rank, problem) for rank, problem in zip(self._ranks.members, problems, strict=True) if problem)
        raise CheckpointError(
            f"on rank {rank} {problem}, and rank {self._ranks.members[0]} finds it as it was written: the mount, the disk or the memory "
            f"of the node of rank {rank} is bad; leave it out, and resume the run"
        )

    def _first(self, action: Callable[[], Any]) -> Any:
        """What rank 0 makes of it, on every rank; CheckpointError on all where it fails there."""
        told: list[Any] = []
        problem = _problem(lambda: told.append(action())) if self._ranks.is_first else ""
        result, problem = self._ranks.from_first((told[0] if told else None, problem))
        if problem:
            raise CheckpointError(problem)
        return result

    def _agree(self, action: Callable[[], Any] | None) -> list[Any]:
        """Do one stage here, learn how it went everywhere: no rank goes on alone, none hangs behind one that failed."""
        result, problem, spoilt = None, "", False
        try:
            result = action() if action else None
        except OSError as error:
            problem = f"rank {self._ranks.rank}: {error.strerror or error}"
        except LaunchError as error:
            problem, spoilt = str(error), isinstance(error, BadNumbers)
        answers = self._ranks.gather((result, problem, spoilt))
        problems = {problem: spoilt for _, problem, spoilt in answers if problem}
        if problems:
            if self._ranks.is_first:
                shutil.rmtree(self._temporary, ignore_errors=True)
            raise _joined(self.path, problems)
        return [result for result, _, _ in answers]

    def _make_room(self, step: int) -> bool:
        """False where the step needs no saving. Raises RunError for an attempt that is not the newest."""
        self._claim.check()
        if self._has(step):
            return False
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(mode=0o750)
        crash.here("room_made")
        return True

    def _has(self, step: int) -> bool:
        """A good checkpoint of a step is never written over itself. A damaged one is set aside, for its name is needed."""
        path = self.path / directory_name(step)
        if not path.exists():
            return False
        try:
            verify(path)
        except CheckpointError:
            _set_aside(path)
            return False
        return True

    def _write(self, step: int, name: str, content: Content) -> dict[str, Any]:
        if self._key is not None:
            content = vault.sealed(content, _length(content), bound(step, name), self._key)
        size, sha256 = self._write_synced(self._temporary / name, content, "in_shard")
        crash.here("after_shard")
        return {"bytes": size, "sha256": sha256}

    def _commit(self, step: int, manifest: dict[str, Any], judged: float, best: int | None) -> None:
        self._write_synced(self._temporary / MANIFEST, (seal(manifest),), "in_manifest")
        self._sync_directory(self._temporary)
        self._before_commit()
        self._claim.check()
        crash.here("before_rename")
        self._temporary.rename(self.path / directory_name(step))  # fails where it exists: then it is a newer attempt's
        crash.here("after_rename")
        self._sync_directory(self.path)
        crash.here("after_commit")
        steps = by_step(self.path)
        good = next((number for number, _ in steps if number <= judged), None)
        for number, path in steps[self.keep :]:  # only after the commit, and never below two
            if number not in (good, best):
                self._prune(path)

    def _sync_directory(self, path: Path) -> None:
        """Where the file system has no such thing, say once what that costs: names may be lost with the power. Raises OSError."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in NO_DIRECTORIES:
                raise
            self._tell(f"put a directory on the disk ({error.strerror}): {NAMES_LOST}")

    def _write_synced(self, path: Path, content: Content, point: str) -> tuple[int, str]:
        """Returns (bytes, sha256) of what was to be written, not of what the disk made of it."""
        size, digest = 0, hashlib.sha256()
        with os.fdopen(writing.new(path), "wb") as file:
            for piece in content:
                file.write(piece)
                digest.update(piece)
                size += len(piece)
                crash.here(point)
            file.flush()
            crash.here("before_fsync")
            if refused := writing.sync(file.fileno()):
                self._tell(f"put a file on the disk for sure ({refused}): {BYTES_LOST}")
        return size, digest.hexdigest()

    def _tell(self, cannot: str) -> None:
        """Once, and first what costs more: files are written before their directories."""
        if not self._told:
            print(f"WARNING: {self.path}: the file system cannot {cannot}; choose a runs_dir=… on another file system for that")
        self._told = True

    def _prune(self, path: Path) -> None:
        """Away with its name first: half of it is no damaged checkpoint. What is left of it, the next attempt removes."""
        crash.here("before_prune")
        gone = path.with_name(f"tmp.{path.name}")
        with contextlib.suppress(OSError):
            path.rename(gone)
        crash.here("in_prune")
        shutil.rmtree(gone, ignore_errors=True)
        crash.here("after_prune")


def _length(content: Content) -> int:
    return content.nbytes if hasattr(content, "nbytes") else sum(map(len, content))  # pyright: ignore[reportAttributeAccessIssue]


def _key_or_problem(action: Callable[[], object]) -> tuple[str, str]:
    """What went wrong with it, and what with the key alone; empty where nothing did."""
    try:
        return _problem(action), ""
    except KeyFault as error:
        return "", str(error)


def _problem(action: Callable[[], object]) -> str:
    """What went wrong with it; empty where nothing did."""
    try:
        action()
    except OSError as error:
        return f"{error.filename or 'a checkpoint'} cannot be read ({error.strerror or error})"
    except KeyFault:
        raise
    except LaunchError as error:
        return str(error)
    return ""


def _described(path: Path) -> dict[str, Any] | str:
    """For JSON, or what is wrong with its manifest."""
    try:
        return {**vars(describe(path)), "path": str(path)}
    except CheckpointError as error:
        return str(error)


def _joined(path: Path, problems: dict[str, bool]) -> LaunchError:
    """`problems`: what each is, and whether it is of the numbers."""
    told = "; ".join(problems)
    if any(problems.values()):
        return BadNumbers(told)
    return RunError(f"{path}: the checkpoint could not be written ({told}); the ones before it are intact: make room and resume the run")


def _set_aside(path: Path) -> None:
    spare = next(name for n in range(10_000) if not (name := path.with_name(f"aside_{path.name}.{n}")).exists())
    path.rename(spare)
