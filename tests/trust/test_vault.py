"""Files encrypted at rest: every byte comes back, and whatever was done to a file is told in a line of its own before a byte is used."""

from __future__ import annotations

import base64
import io
import os
import random
import secrets
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import REPO

from launcher.clusters.env import check_env
from launcher.errors import ConfigError, KeyFault
from launcher.trust import vault, vault_key
from launcher.trust.secret import Mask
from launcher.trust.vault import HEADER, TAG, Damaged, Opened

pytest.importorskip("cryptography")

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
PIECE, NAME = 64, "step_000000004/model.safetensors"
SIZES = [0, 1, 63, 64, 65, 128, 129, 1000]


def plain(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def made(size: int, key: bytes = KEY, name: str = NAME, step: int = 7) -> bytes:
    data = plain(size)
    pieces = [memoryview(data)[at : at + step] for at in range(0, size, step)]
    return b"".join(vault.sealed(pieces, size, name, key, PIECE))


def opened(data: bytes, key: bytes = KEY, name: str = NAME) -> Opened:
    return Opened(io.BytesIO(data), name, key)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1, 64, 5000])
def test_what_was_written_is_read(size: int, step: int) -> None:
    data = made(size, step=step)
    assert len(data) == vault.length(size, PIECE)
    assert vault.plain(data, NAME, KEY) == plain(size)
    assert vault.key_of(data) == vault.mark(KEY) != vault.mark(OTHER)


def test_any_range_is_read_and_only_its_pieces_are_decrypted() -> None:
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            Counting.taken += len(data)
            return data

    data, draw = made(1000), random.Random(1)
    for _ in range(200):
        begin = draw.randrange(1000)
        count = draw.randrange(1, 1000 - begin + 1)
        file = opened(data)
        file.seek(begin)
        into = bytearray(count)
        view = memoryview(into)
        while len(view):
            view = view[file.readinto(view) :]
        assert bytes(into) == plain(1000)[begin : begin + count]
    Counting.taken = 0
    file = Opened(Counting(data), NAME, KEY)
    file.seek(500)
    assert file.read(8) == plain(1000)[500:508]
    assert Counting.taken == HEADER.size + PIECE + TAG


def test_no_two_files_are_alike_and_none_shows_what_is_in_it() -> None:
    zeros = [b"".join(vault.sealed([bytes(1000)], 1000, NAME, KEY, PIECE)) for _ in range(2)]
    assert zeros[0] != zeros[1]
    pieces = {zeros[0][HEADER.size + n * (PIECE + TAG) :][:PIECE] for n in range(15)}
    assert len(pieces) == 15
    assert KEY not in zeros[0]


def _flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _swapped(data: bytes) -> bytes:
    first, second = (data[HEADER.size + n * (PIECE + TAG) :][: PIECE + TAG] for n in (0, 1))
    return data[: HEADER.size] + second + first + data[HEADER.size + 2 * (PIECE + TAG) :]


def _shorter(data: bytes) -> bytes:
    """Cut at a piece's end, and the header says so too, by somebody who cannot sign it."""
    head = list(HEADER.unpack(data[: HEADER.size]))
    head[2] = 2 * PIECE
    return HEADER.pack(*head) + data[HEADER.size : HEADER.size + 2 * (PIECE + TAG)]


END = vault.length(1000, PIECE)
DONE = {
    "a byte": (_flip(HEADER.size + 3 * (PIECE + TAG) + 5), "piece 4 of 16, bytes 192 to 256, was changed"),
    "the last byte": (_flip(END - 1), "piece 16 of 16, bytes 960 to 1000, was changed"),
    "the magic": (_flip(0), "is not encrypted, and should be"),
    "the version": (_flip(7), "is encrypted in format 0"),
    "the size of a piece": (_flip(11), "its header was changed"),
    "the length": (_flip(19), "its header was changed"),
    "the salt": (_flip(30), "its header was changed"),
    "whose": (_flip(70), "its header was changed"),
    "the tag": (_flip(HEADER.size - 1), "its header was changed"),
    "cut in a piece": (lambda data: data[:-7], "bytes of 1356: it was cut off"),
    "cut at a piece's end": (lambda data: data[: HEADER.size + 4 * (PIECE + TAG)], "bytes of 1356: it was cut off"),
    "cut at the header": (lambda data: data[: HEADER.size], "bytes of 1356: it was cut off"),
    "cut in the header": (lambda data: data[:50], "was cut off: it ends in its header"),
    "nothing": (lambda data: b"", "was cut off: it ends in its header"),
    "a shorter one that says so": (_shorter, "its header was changed"),
    "more": (lambda data: data + b"x", "something was added to it"),
    "a piece more": (lambda data: data + data[-PIECE - TAG :], "something was added to it"),
    "two pieces": (_swapped, "piece 1 of 16, bytes 0 to 64, was changed or is in another's place"),
    "another file": (lambda data: made(1000, name="step_000000003/model.safetensors"), f"is another file, put in the place of {NAME}"),
    "its plain bytes": (lambda data: plain(1000), "is not encrypted, and should be"),
}


@pytest.mark.parametrize("what", DONE)
def test_what_was_done_to_a_file_is_said_before_a_byte_is_used(what: str) -> None:
    change, said = DONE[what]
    assert END == 1356
    with pytest.raises(Damaged) as error:
        opened(change(made(1000))).readall()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_pieces_of_two_files_with_one_key_and_name_do_not_mix() -> None:
    first, second = made(1000), made(1000)
    with pytest.raises(Damaged, match="piece 1 of 16"):
        opened(first[: HEADER.size] + second[HEADER.size :]).readall()


def test_that_it_is_the_last_piece_is_part_of_it() -> None:
    """Whoever had the key of the tags could not shorten it all the same."""
    cipher, tags = vault._derived(KEY, (salt := os.urandom(32)))
    data = plain(2 * PIECE)
    whole = b"".join(vault.sealed([data], 2 * PIECE, NAME, KEY, PIECE))
    assert len(whole) == vault.length(2 * PIECE, PIECE)
    head = HEADER.pack(vault.MAGIC, PIECE, PIECE, salt, vault._mark(KEY), vault._tag(tags, b"name", NAME.encode()), b"")[:-TAG]
    head += vault._tag(tags, b"header", head)
    bound = head + NAME.encode()
    good = head + cipher.encrypt(vault._nonce(0, last=True), data[:PIECE], bound)
    assert opened(good).readall() == data[:PIECE]
    with pytest.raises(Damaged, match="piece 1 of 1"):
        opened(head + cipher.encrypt(vault._nonce(0, last=False), data[:PIECE], bound)).readall()


def test_another_key_is_not_damage() -> None:
    with pytest.raises(KeyFault, match=f"is encrypted with the key {vault.mark(KEY)[:8]}, and yours is {vault.mark(OTHER)[:8]}") as error:
        opened(made(1000), OTHER)
    assert not isinstance(error.value, Damaged)
    assert KEY.hex() not in str(error.value)


def test_another_length_than_was_said_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="was to have 5 bytes"):
        list(vault.sealed([b"1234"], 5, NAME, KEY, PIECE))


def test_without_the_package_a_line_says_what_to_type() -> None:
    program = "import sys; sys.modules['cryptography'] = None\nfrom launcher.trust import vault\nlist(vault.sealed([], 0, 'n', bytes(32)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, timeout=60)
    assert "RunError: encrypting needs the package cryptography; type: pip install 'launcher[crypt]'" in done.stderr


# ---------------------------------------------------------------- the key


def test_a_key_is_hex_or_base64() -> None:
    coded = base64.b64encode(KEY).decode(), base64.urlsafe_b64encode(KEY).decode().rstrip("=")
    for text in (KEY.hex(), KEY.hex().upper(), *coded, f" {KEY.hex()}\n"):
        assert vault_key.found({"LAUNCHER_KEY": text}) == KEY
    assert vault_key.found({}) is None
    assert vault_key.found({"LAUNCHER_KEY": ""}) is None


@pytest.mark.parametrize("text", ["secret", KEY.hex()[:-1], KEY.hex() + "0", "g" * 64, base64.b64encode(KEY[:31]).decode(), "\x00" * 64])
def test_what_is_no_key_is_one_line_without_it(text: str) -> None:
    with pytest.raises(KeyFault) as error:
        vault_key.found({"LAUNCHER_KEY": text})
    assert str(error.value) == "LAUNCHER_KEY holds no key: 64 hex digits, or base64 of 32 bytes"


@pytest.mark.parametrize("environment", [{}, {"LAUNCHER_KEY": "secret"}])
def test_to_make_a_key_is_said_where_something_is_written_alone(environment: dict[str, str]) -> None:
    """One that is made now opens nothing that is there."""
    with pytest.raises(KeyFault) as error:
        vault_key.needed("this", environment)
    assert "token_hex" not in str(error.value)
    assert ("set one of them to the key that it was written with" in str(error.value)) == (not environment)
    with pytest.raises(KeyFault) as error:
        vault_key.needed("this", environment, new=True)
    assert f"make one with: {vault_key.MAKE}" in str(error.value)


def test_a_key_lies_in_a_file_that_is_mine_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY.hex() + "\n")
    path.chmod(0o600)
    there = {"LAUNCHER_KEY_FILE": str(path)}
    assert vault_key.found(there) == KEY == vault_key.found({**there, "LAUNCHER_KEY": KEY.hex()})
    with pytest.raises(KeyFault, match="are two keys; unset one"):
        vault_key.found({**there, "LAUNCHER_KEY": OTHER.hex()})
    for mode, said in ((0o640, "can be read by others"), (0o604, "can be read by others"), (0o602, "everybody may write")):
        path.chmod(mode)
        with pytest.raises(KeyFault, match=said):
            vault_key.found(there)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(KeyFault, match="holds no key") as error:
        vault_key.found(there)
    assert "no key\n" not in str(error.value)
    with pytest.raises(KeyFault, match="cannot be read"):
        vault_key.found({"LAUNCHER_KEY_FILE": str(tmp_path / "none")})
    with pytest.raises(KeyFault, match="is no whole path"):
        vault_key.found({"LAUNCHER_KEY_FILE": "key"})


def test_the_command_that_makes_one_makes_one() -> None:
    words = vault_key.MAKE.split(" ", 2)
    done = subprocess.run([sys.executable, words[1], words[2].strip("'")], capture_output=True, text=True, check=True, timeout=60)
    assert vault_key.found({"LAUNCHER_KEY": done.stdout}) is not None


def test_a_key_is_masked_however_it_is_written() -> None:
    key = secrets.token_bytes(32)
    ways = [key.hex(), key.hex().upper(), key.hex(" "), base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode(), repr(key)]
    for text in (key.hex(), key.hex().upper(), base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode().rstrip("=")):
        mask = Mask({"LAUNCHER_KEY": text})
        for way in ways:
            assert way.rstrip("=").strip("b'") not in mask(f"it is {way} there"), (text, way)
    assert Mask({"LAUNCHER_KEY_FILE": "/home/me/key"})("/home/me/key") == "/home/me/key"


def test_reading_needs_nothing_of_what_trains() -> None:
    program = "import sys; from launcher.trust import vault, vault_key; assert not {'torch', 'numpy', 'cryptography'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=REPO, check=True, timeout=60)


def test_a_key_is_no_value_of_a_config() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.env\.LAUNCHER_KEY: .*cluster\.env.LAUNCHER_KEY_FILE=… and the path of a file"):
        check_env({"LAUNCHER_KEY": "${oc.env:LAUNCHER_KEY}"}, [])
    check_env({"LAUNCHER_KEY_FILE": "/home/me/key"}, [])


def test_a_file_is_encrypted_and_read_in_the_memory_of_a_few_pieces(tmp_path: Path) -> None:
    size, block = 48 << 20, bytes(1 << 17)
    tracemalloc.start()
    try:
        with (tmp_path / "file").open("wb") as file:
            for piece in vault.sealed((block for _ in range(size // len(block))), size, NAME, KEY):
                file.write(piece)
        with (tmp_path / "file").open("rb", buffering=0) as file:
            plain, into, read = Opened(file, NAME, KEY), bytearray(1 << 16), 0
            while count := plain.readinto(into):
                read += count
        assert (read, tracemalloc.get_traced_memory()[1] < 8 * vault.PIECE) == (size, True)
    finally:
        tracemalloc.stop()
