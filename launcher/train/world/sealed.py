"""A store that others can reach, and neither read nor write in a way that is believed.

torch's TCPStore asks nobody who he is and answers everybody, and in 2.13 lists its keys: a name nobody can guess is no guard. So what
goes in is encrypted and bound to its key, and what comes out and does not verify is no value but an error.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

_TAG = 32
_kept: list[Any] = []
"""C++ holds a store of Python's by its C++ half alone; the other half has to be kept alive here."""


class Forged(RuntimeError):
    """Somebody who does not know the key has written into the store. A RuntimeError, as torch's own stores raise."""


class Sealed(dist.Store):  # pyright: ignore[reportPrivateImportUsage]  # documented as public
    """`inner`, with every value sealed by `key`. `label` keeps apart stores that share a key.

    The tag is made of the label, the name and the value, and is the nonce of the stream (the construction of SIV): the same value under
    the same name is sealed to the same bytes, which compare_set needs. Not sealed: names; whether one is there; what `add` counts, which
    says when somebody goes on, never with what. Somebody in between can bring back an older value of the same name, and can delete: the
    run fails then, or waits, and does nothing else.
    """

    timeout: timedelta
    """torch's, and not in its stubs."""

    def __init__(self, inner: Any, key: bytes, label: str) -> None:
        super().__init__()
        self._inner, self._key, self._label = inner, key, label
        self._sign, self._cipher = (hashlib.sha256(use + key).digest() for use in (b"sign", b"cipher"))
        self.set_timeout(inner.timeout)
        _kept.append(self)

    def seal(self, name: str, value: bytes) -> bytes:
        tag = self._tag(name, value)
        return tag + self._stream(tag, value)

    def open(self, name: str, sealed: bytes) -> bytes:
        """Raises Forged."""
        tag = sealed[:_TAG]
        value = self._stream(tag, sealed[_TAG:])
        if not hmac.compare_digest(tag, self._tag(name, value)):
            raise Forged(f"{name!r} in the store of the {self._label} was not written by this run: somebody else reaches its port")
        return value

    def _tag(self, name: str, value: bytes) -> bytes:
        words = (self._label.encode(), name.encode(), value)
        text = b"".join(len(word).to_bytes(8, "big") + word for word in words)
        return hmac.digest(self._sign, text, "sha256")

    def _stream(self, tag: bytes, value: bytes) -> bytes:
        stream = hashlib.shake_256(self._cipher + tag).digest(len(value))
        return (int.from_bytes(value, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(value), "big")

    # ---- what torch calls, from Python and from C++, by the names that each of them has

    def set(self, key: str, value: bytes | str) -> None:
        self._inner.set(key, self.seal(key, _bytes(value)))

    def get(self, key: str) -> bytes:
        return self.open(key, self._waiting().get(key))

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.open(key, value) for key, value in zip(keys, self._waiting().multi_get(keys), strict=True)]

    def multi_set(self, keys: list[str], values: Sequence[bytes | str]) -> None:
        self._inner.multi_set(keys, [self.seal(key, _bytes(value)) for key, value in zip(keys, values, strict=True)])

    def compare_set(self, key: str, expected_value: bytes | str, desired_value: bytes | str) -> bytes:
        """Nothing expected is a key that is not there."""
        before = _bytes(expected_value)
        found = self._inner.compare_set(key, self.seal(key, before) if before else b"", self.seal(key, _bytes(desired_value)))
        return self.open(key, found) if found else b""

    def add(self, key: str, value: int) -> int:
        return self._inner.add(key, value)

    def check(self, keys: list[str]) -> bool:
        return self._inner.check(keys)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        self._inner.wait(keys, self.timeout if timeout is None else timeout)

    def delete_key(self, key: str) -> bool:
        return self._inner.delete_key(key)

    def num_keys(self) -> int:
        return self._inner.num_keys()

    deleteKey, getNumKeys = delete_key, num_keys  # C++ asks for these

    def has_extended_api(self) -> bool:
        return True

    def append(self, key: str, value: bytes | str) -> None:
        raise NotImplementedError("a sealed value cannot be added to")

    def clone(self) -> Sealed:
        return Sealed(self._inner.clone(), self._key, self._label)

    def _waiting(self) -> Any:
        """`set_timeout` reaches a store of Python's in its C++ half only."""
        if self._inner.timeout != self.timeout:
            self._inner.set_timeout(self.timeout)
        return self._inner


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
