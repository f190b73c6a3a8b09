"""The reader of worked examples takes the text as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from worked_examples import of

TEXT = '''\
# Contributing

## To add a thing

```python
# lab/thing.py
# a comment at the left
THING = """
## no heading
"""
```

  - and in a list

    ```yaml
    # conf/thing/mine.yaml
    _target_: lab.thing.Thing
    ```

```console
python -m launcher +exp=toy thing=mine   # what it prints
other command
```

### A part of it

```console
python -m launcher status 'a b'
```

## To add another

```python
# lab/other.py
```
'''


def test_files_and_commands_are_the_text_of_one_section(tmp_path: Path) -> None:
    (tmp_path / "doc.md").write_text(TEXT)
    example = of("To add a thing", tmp_path / "doc.md")
    assert list(example.files) == ["lab/thing.py", "conf/thing/mine.yaml"]
    assert example.commands == [["+exp=toy", "thing=mine"], ["status", "a b"]]
    example.write(tmp_path / "home")
    assert (tmp_path / "home" / "lab" / "thing.py").read_text().endswith('THING = """\n## no heading\n"""\n')
    assert (tmp_path / "home" / "conf" / "thing" / "mine.yaml").read_text() == "# conf/thing/mine.yaml\n_target_: lab.thing.Thing\n"
    assert (tmp_path / "home" / "lab" / "__init__.py").exists()


@pytest.mark.parametrize(("heading", "why"), [("To add nothing", "no section"), ("A part of it", "no fenced block")])
def test_a_section_without_files_is_an_error_of_the_document(tmp_path: Path, heading: str, why: str) -> None:
    (tmp_path / "doc.md").write_text(TEXT)
    with pytest.raises(LookupError, match=why):
        of(heading, tmp_path / "doc.md")
