"""Files that are encrypted at rest: what lies on a disk that others can read says nothing, and what they changed there is not believed.

    header    magic, size of a piece, length of the plain file, salt; which key it is; whose name it has; a tag of all that
    pieces    AES-256-GCM of so many plain bytes each, 16 bytes more with its tag; the last one is shorter, and says that it is the last

The key of a file is drawn from the key of the user and the file's salt by HKDF-SHA256 (RFC 5869), so that a nonce may count: pieces are
bound to their place and to the end as in STREAM (Hoang, Reyhanitabar, Rogaway and Vizár 2015, https://eprint.iacr.org/2015/189), and by
associated data to the header and to the name of the file. Any piece can be read without those before it.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from launcher.errors import KeyFault, RunError

PIECE = 1 << 20
"""Plain bytes that are encrypted at once: what a reader has in memory, and the least that it decrypts."""
MAGIC = b"LSEALED\1"
"""As the length of a header of safetensors it is too large, and it is no JSON: no plain file of ours begins so."""
HEADER = struct.Struct(">8sIQ32s16s16s16s")
TAG = 16
_MOST_PIECE = 64 << 20


class Damaged(ValueError):
    """Not as it was written, in words that follow the name of the file."""


def mark(key: bytes) -> str:
    """Of a key, what may be shown: it tells one from another, and nothing of what they are."""
    return _mark(key).hex()


def length(plain: int, piece: int = PIECE) -> int:
    """Bytes of a file with so many."""
    return HEADER.size + plain + TAG * max(1, -(-plain // piece))


def sealed(content: Iterable[bytes | memoryview], plain: int, name: str, key: bytes, piece: int = PIECE) -> Iterator[bytes]:
    """What is written of a file of `plain` bytes, piece by piece. Raises RunError without the package that encrypts."""
    salt = os.urandom(32)
    cipher, tags = _derived(key, salt)
    head = HEADER.pack(MAGIC, piece, plain, salt, _mark(key), _tag(tags, b"name", name.encode()), b"")[:-TAG]
    head += _tag(tags, b"header", head)
    yield head
    bound, count, written, left = head + name.encode(), 0, 0, bytearray()
    for some in content:
        view = memoryview(some)
        while len(view):
            if len(left) == piece:  # and there is more, so this one is not the last
                yield cipher.encrypt(_nonce(count, last=False), left, bound)
                count, written, left = count + 1, written + piece, bytearray()
            left += view[: (taken := piece - len(left))]
            view = view[taken:]
    if written + len(left) != plain:
        raise ValueError(f"{name} was to have {plain} bytes, and has {written + len(left)}")
    yield cipher.encrypt(_nonce(count, last=True), left, bound)


def is_sealed(start: bytes) -> bool:
    """By how a file begins."""
    return start.startswith(MAGIC[:-1])


def key_of(start: bytes) -> str:
    """The mark of the key of a file that begins so; empty where it is none of these. What is damaged may have any."""
    return HEADER.unpack(start[: HEADER.size])[4].hex() if len(start) >= HEADER.size and is_sealed(start) else ""


class Opened(io.RawIOBase):
    """The plain bytes of a file, wherever they are asked for, and as many as are asked for: each piece is decrypted when it is needed and
    was as it was written before a byte of it is given. Raises Damaged, and what reading raises."""

    def __init__(self, file: BinaryIO | io.RawIOBase, name: str, key: bytes) -> None:
        """`name`: what it was called when it was written. Raises KeyFault where it was written with another key."""
        super().__init__()
        self._file = file
        head = _exactly(file, HEADER.size, "its header")
        magic, self._piece, self.size, salt, mark_, whose, tag = HEADER.unpack(head)
        if not is_sealed(magic):
            raise Damaged("is not encrypted, and should be: it was put in the place of one that was")
        if magic != MAGIC:
            raise Damaged(f"is encrypted in format {magic[-1]}, and this launcher reads {MAGIC[-1]}; use the launcher that wrote it")
        if not hmac.compare_digest(mark_, _mark(key)):
            raise KeyFault(
                f"{name} is encrypted with the key {mark_.hex()[:8]}, and yours is {mark(key)[:8]}; set LAUNCHER_KEY or LAUNCHER_KEY_FILE "
                "to the one that it was written with"
            )
        self._cipher, tags = _derived(key, salt)
        if not hmac.compare_digest(tag, _tag(tags, b"header", head[:-TAG])) or not 0 < self._piece <= _MOST_PIECE:
            raise Damaged("is not as it was written: its header was changed")
        if not hmac.compare_digest(whose, _tag(tags, b"name", name.encode())):
            raise Damaged(f"is another file, put in the place of {name}")
        self._bound = head + name.encode()
        self._last = max(1, -(-self.size // self._piece)) - 1
        there, wanted = file.seek(0, os.SEEK_END), length(self.size, self._piece)
        if there != wanted:
            what = "it was cut off" if there < wanted else "something was added to it"
            raise Damaged(f"has {there} bytes of {wanted}: {what}")
        self._at = 0
        self._held: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        self._at = position + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As much as one piece has of it."""
        into = memoryview(buffer).cast("B")
        count = min(len(into), self.size - self._at)
        if count <= 0:
            return 0
        number, begin = divmod(self._at, self._piece)
        some = memoryview(self._decrypted(number))[begin : begin + count]
        into[: len(some)] = some
        self._at += len(some)
        return len(some)

    def readall(self) -> bytes:
        pieces: list[bytes] = []
        while self._at < self.size:
            number, begin = divmod(self._at, self._piece)
            pieces.append(self._decrypted(number)[begin:])
            self._at += len(pieces[-1])
        self._decrypted(self._last)  # of no bytes too: that they are none is what was written
        return b"".join(pieces)

    def _decrypted(self, number: int) -> bytes:
        from cryptography.exceptions import InvalidTag

        if self._held[0] != number:
            begin = number * self._piece
            end = min(begin + self._piece, self.size)
            self._file.seek(HEADER.size + begin + TAG * number)
            data = _exactly(self._file, end - begin + TAG, f"piece {number + 1} of {self._last + 1}")
            try:
                plain = self._cipher.decrypt(_nonce(number, last=number == self._last), data, self._bound)
            except InvalidTag:
                where = f"piece {number + 1} of {self._last + 1}, bytes {begin} to {end}"
                raise Damaged(f"is not as it was written: {where}, was changed or is in another's place") from None
            self._held = number, plain
        return self._held[1]


def plain(data: bytes, name: str, key: bytes) -> bytes:
    """All of a small file. Raises as Opened."""
    return Opened(io.BytesIO(data), name, key).readall()


def start_of(path: Path) -> bytes:
    """As much as `key_of` needs. Raises OSError."""
    from launcher.trust import reading

    with reading.opened(path) as file:
        return file.read(HEADER.size)


def check() -> None:
    """Raises RunError where the package that encrypts is not installed."""
    try:
        import cryptography.hazmat.primitives.ciphers.aead  # pyright: ignore[reportUnusedImport]  # noqa: F401
    except ImportError:
        raise RunError("encrypting needs the package cryptography; type: pip install 'launcher[crypt]'") from None


# ---------------------------------------------------------------- of keys


def _derived(key: bytes, salt: bytes) -> tuple[Any, bytes]:
    """The cipher of a file, and the key of its tags."""
    check()
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    both = HKDF(SHA256(), 64, salt, b"launcher sealed file 1").derive(key)
    return AESGCM(both[:32]), both[32:]


def _mark(key: bytes) -> bytes:
    return hmac.digest(key, b"launcher which key", hashlib.sha256)[:16]


def _tag(key: bytes, use: bytes, data: bytes) -> bytes:
    return hmac.digest(key, use + b"\0" + data, hashlib.sha256)[:TAG]


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _exactly(file: BinaryIO | io.RawIOBase, count: int, what: str) -> bytes:
    data = bytearray()
    while len(data) < count:
        some = file.read(count - len(data))
        if not some:
            raise Damaged(f"was cut off: it ends in {what}")
        data += some
    return bytes(data)
