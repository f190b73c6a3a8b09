"""No input takes more than two seconds or 200 MB to be refused: what is small as it is written and large as it is read."""

from __future__ import annotations

import io
import shutil
import struct
import textwrap
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import TOY, Answer
from hostile import MOST_BYTES, MOST_SECONDS, measured

from data.store.parquet import _decode
from launcher.config import bounds, dialect
from launcher.errors import ConfigError, LaunchError

Command = Callable[..., Answer]

HEAD = "# @package _global_\ndefaults:\n  - toy\n  - _self_\nmodel:\n  bomb:\n"


def aliases(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def references(times: int, form: str) -> str:
    return "\n".join(["b0: abcdefghij", *(f"b{n}: {form.format(n - 1, n - 1)}" for n in range(1, times))])


YAMLS = {
    **{f"aliases of {levels} levels": aliases(levels) for levels in (5, 6, 9, 30)},
    "merged aliases": "a0: &a0 {x: 1, y: 2}\n" + "\n".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 30)),
    "an alias to itself": "a: &a [*a]",
    "an alias to itself as a key's": "a: &a {b: *a}",
    "50,000 keys": "\n".join(f"k{n}: 1" for n in range(50_000)),
    "50,000 values": "a: [" + "1, " * 50_000 + "1]",
    "brackets": "a: " + "[" * 10_000 + "]" * 10_000,
    "braces": "a: " + "{b: " * 10_000 + "1" + "}" * 10_000,
    "dashes": "a:\n  " + "- " * 5_000 + "1",
    "questions": "? " * 5_000 + "a",
    "indents": "\n".join(" " * n + "a:" for n in range(600)),
    "a megabyte": "a: " + "x" * (1 << 20),
    "a number of 5,000 digits": "a: " + "9" * 5_000,
    "a hexadecimal one": "a: 0x" + "f" * 5_000,
    "a negative one": "a: -" + "9" * 5_000,
}
REFERRING = {
    "two references each, thirty times": references(30, "${{model.bomb.b{}}}${{model.bomb.b{}}}"),
    "two with words, thirty times": references(30, "x ${{model.bomb.b{}}} y ${{model.bomb.b{}}}"),
    "lists of two, thirty times": references(30, "['${{model.bomb.b{}}}', '${{model.bomb.b{}}}']"),
    "mappings of two, thirty times": references(30, "{{c: '${{model.bomb.b{}}}', d: '${{model.bomb.b{}}}'}}"),
    "selected twice, thirty times": references(30, "['${{oc.select:model.bomb.b{}}}', '${{oc.select:model.bomb.b{}}}']"),
    "a large list, often": "a: [" + "1, " * 3_000 + "1]\nb: [" + "'${model.bomb.a}', " * 1_000 + "1]",
    "itself": "a: ['${model.bomb.a}']",
    "each other": "a: ['${model.bomb.b}']\nb: ['${model.bomb.a}']",
    "itself as a text": "a: x${model.bomb.a}",
    "a long text": "a: " + "y" * 60_000 + "\nb: " + "${model.bomb.a}" * 100,
    "a text of many references": "a: x\nb: " + "${model.bomb.a}" * 5_000,
    "braces within braces": "a: " + "${" * 500 + "b" + "}" * 500,
    "brackets within a reference": "a: '${oc.create:" + "[" * 400 + "]" * 400 + "}'",
}
WORDS = {
    "brackets": "+a=" + "[" * 1_000,
    "brackets that are closed": "+a=" + "[" * 900 + "]" * 900,
    "braces": "+a=" + "{a:" * 900 + "1" + "}" * 900,
    "calls": "+a=" + "str(" * 800 + "1" + ")" * 800,
    "references": "+a='" + "${" * 1_300 + "b" + "}" * 1_300 + "'",
    "a long list": "+a=[" + "1," * 40_000 + "1]",
    "a long text": "name=" + "a" * 100_000,
    "a long key": "+" + "a." * 40_000 + "b=1",
    "a number of 5,000 digits": "seed=" + "9" * 3_900,
    "a long id": "id=" + "x" * 3_000,
    "a long choice": "model=" + "x" * 3_000,
    "a range": "seed=range(0,1000000000)",
}


@pytest.fixture
def exp(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    def call(text: str) -> tuple[str, ...]:
        shutil.copytree(TOY[1], tmp_path / "conf")
        (tmp_path / "conf" / "exp" / "bomb.yaml").write_text(HEAD + textwrap.indent(text, "    ") + "\n")
        return ("--config-dir", str(tmp_path / "conf"), "+exp=bomb")

    return call


def is_refused(answer: Answer, begun: float) -> None:
    assert answer.code == 2, answer
    assert (answer.out, len(answer.lines), "Traceback" in answer.err) == ("", 1, False), answer
    assert len(answer.lines[0]) < 1_500
    assert time.process_time() - begun < MOST_SECONDS


@pytest.mark.parametrize("kind", [*YAMLS, *REFERRING])
def test_a_yaml_that_blows_up_is_refused(kind: str, exp: Callable[[str], tuple[str, ...]], command: Command) -> None:
    words = exp({**YAMLS, **REFERRING}[kind])
    begun = time.process_time()
    is_refused(command("plan", *words), begun)


@pytest.mark.parametrize("kind", WORDS)
def test_a_word_that_blows_up_is_refused(kind: str, command: Command) -> None:
    begun = time.process_time()
    is_refused(command("plan", *TOY, WORDS[kind]), begun)


def test_forty_thousand_words_are_refused(command: Command) -> None:
    begun = time.process_time()
    is_refused(command("plan", *TOY, *(f"+a{n}=1" for n in range(40_000))), begun)


@pytest.mark.parametrize("kind", [
    "aliases of 9 levels", "50,000 keys", "lists of two, thirty times", "two references each, thirty times", "a megabyte",
])  # fmt: skip
def test_as_a_process_it_takes_neither_time_nor_memory(
    kind: str, exp: Callable[[str], tuple[str, ...]], tmp_path: Path, cache: Path
) -> None:
    code, _, err, seconds, memory = measured(tmp_path, cache, "render", *exp({**YAMLS, **REFERRING}[kind]))
    assert (code, err.count("\n")) == (2, 1), err
    assert (seconds < 2 * MOST_SECONDS, memory < MOST_BYTES) == (True, True), (seconds, memory)  # other tests are at it too


@pytest.mark.parametrize("kind", YAMLS)
def test_the_config_of_somebody_s_run_is_read_with_the_same_bounds(kind: str) -> None:
    begun = time.process_time()
    with pytest.raises((dialect.yaml.YAMLError, ValueError)):
        dialect.read(YAMLS[kind])
    assert time.process_time() - begun < MOST_SECONDS


def test_an_alias_is_fine_where_it_means_little() -> None:
    assert dialect.read("a: &a [1, 2]\nb: *a\nc: {d: *a}") == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}
    assert len(dialect.read("a: [" + "1, " * (bounds.NODES - 10) + "1]")["a"]) == bounds.NODES - 9


def test_an_error_of_a_hundred_kilobytes_is_one_readable_line() -> None:
    told = str(ConfigError("seed=" + "x" * 100_000 + " is no number; type one"))
    assert len(told) < 1_100
    assert told.startswith("seed=xxx")
    assert told.endswith("is no number; type one")
    assert str(LaunchError("a short one")) == "a short one"


def png(width: int, height: int) -> bytes:
    """A picture of one colour, which takes a byte for a thousand of its own."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + bytes(width // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8_000, 8_000), (12_000, 12_000), (16_000, 16_000), (64, 32), (1 << 30, 8)])
def test_a_picture_is_not_decoded_before_its_size_is_known(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: pytest.fail("decoded"))
    encoded = png(*size) if size[0] < 1 << 20 else png(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", *size))
    with pytest.raises(ValueError, match=r"image .*row 7"):
        _decode(encoded, (32, 32), 7, ValueError)


def test_a_picture_of_its_size_is_decoded() -> None:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 9, np.uint8)).save(out, "PNG")
    assert _decode(out.getvalue(), (32, 32), 0, ValueError).mean() == 9
