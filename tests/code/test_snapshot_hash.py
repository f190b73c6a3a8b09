"""The hash of the code is that of names, executable bits and contents as they lie there."""

from __future__ import annotations

import os
import time
from pathlib import Path

from made_projects import MINIMAL, commit, run_git, source_of, write

from launcher.code.snapshot import find


def test_the_hash_is_that_of_names_executable_bits_and_contents(project: Path) -> None:
    write(project, {"a.py": "1", "b.py": "2"})
    (project / "link.py").symlink_to("a.py")
    seen = [find(project, []).digest()]

    os.utime(project / "a.py", (time.time() - 1000, time.time() - 1000))
    (project / "a.py").chmod(0o640)
    run_git(project, "add", "--all")
    assert find(project, []).digest() == seen[0]

    def differs() -> None:
        seen.append(find(project, []).digest())
        assert len(set(seen)) == len(seen)

    write(project, {"a.py": "3"})
    differs()
    (project / "a.py").chmod(0o740)
    differs()
    (project / "b.py").rename(project / "c.py")
    differs()
    (project / "link.py").unlink()
    (project / "link.py").symlink_to("c.py")
    differs()
    write(project, {"empty.py": ""})
    differs()


def test_the_hash_does_not_depend_on_where_the_project_is(tmp_path: Path) -> None:
    one, two = (commit(write(tmp_path / name, {**MINIMAL, "a.py": "1"})) for name in ("one", "two"))
    assert find(one, []).digest() == find(two, []).digest()


def test_where_a_name_ends_and_a_content_begins_is_part_of_the_hash(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a": "1", "b": "2"})
    two = write(tmp_path / "two", {"a": "1b\0f\0" + "2"})
    assert source_of(one).digest() != source_of(two).digest()
