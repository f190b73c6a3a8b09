"""A pickle of lists, texts and arrays of numbers, read without unpickling: of the instructions thirty-six are known, each done by hand.

What published batches are (`cifar-10-batches-py`): a dict that Python 2 pickled. Python's own reader would import and call whatever a file
names. Here nothing is imported or called by name: of names four are known, and what they stand for is made here.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

_STEPS = 1_000_000
"""Instructions. 50,000 samples with names that Python 3 wrote are half of that."""
_WHOLE = {"u1": np.uint8, "i1": np.int8, "i2": np.int16, "i4": np.int32, "i8": np.int64}
"""Types of arrays, as NumPy writes them. One of objects ("O") is none."""


class Name(Enum):
    """What a file may name."""

    RECONSTRUCT = "reconstruct"
    ARRAY = "ndarray"
    TYPE = "dtype"
    ENCODE = "encode"


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): Name.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): Name.RECONSTRUCT,
    ("numpy", "ndarray"): Name.ARRAY,
    ("numpy", "dtype"): Name.TYPE,
    ("_codecs", "encode"): Name.ENCODE,
}


class _Type(NamedTuple):
    code: str


class _Empty:
    """An array of which nothing is known yet."""


class _Mark:
    pass


def read(raw: bytes) -> dict[str, Any]:
    """The dict that is pickled in `raw`: by names, whole numbers, texts as bytes or str, lists, tuples, dicts, arrays of whole numbers.
    Raises ValueError, in a few words, where it is anything else. Takes as much memory as `raw` twice more, at most."""
    made = _Reader(raw).made()
    if not isinstance(made, dict):
        raise ValueError("holds no dict")
    return {_text(key): value for key, value in made.items() if isinstance(key, str | bytes)}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._left = len(raw)
        """Bytes that may still be made of texts: one that is kept could be encoded again and again."""

    def made(self) -> Any:
        try:
            for _ in range(_STEPS):
                code = self._take(1)
                if code == b".":
                    return self._stack.pop()
                (_STEP.get(code) or self._refuse(code))(self)
        except (IndexError, TypeError, struct.error, UnicodeError) as error:
            raise ValueError("is cut, or no pickle of batches") from error
        raise ValueError(f"has more than {_STEPS:,} instructions")

    def _refuse(self, code: bytes) -> Callable[[_Reader], None]:
        known = next((each for each in pickletools.opcodes if each.code == code.decode("latin-1")), None)
        raise ValueError(f"is no pickle of batches (it has {known.name if known else f'the byte {code[0]}'}); nothing of it was run")

    # ------------------------------------------------------------ bytes

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._raw):
            raise IndexError
        self._at, begin = end, self._at
        return self._raw[begin:end]

    def _number(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._raw.find(b"\n", self._at, self._at + 100)
        if end < 0:
            raise IndexError
        line = self._take(end - self._at)
        self._at += 1
        return line.decode("ascii", "backslashreplace")

    # ------------------------------------------------------------ steps

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def protocol(self) -> None:
        if self._number("<B") > 4:
            raise ValueError("is of a protocol that is not known")

    def frame(self) -> None:
        self._number("<Q")  # how far one could read ahead

    def text(self, form: str) -> None:
        self.push(self._take(self._number(form)))

    def unicode(self, form: str) -> None:
        self.push(self._take(self._number(form)).decode("utf-8"))

    def long(self) -> None:
        self.push(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

    def since_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[place], _Mark):
                taken = self._stack[place + 1 :]
                del self._stack[place:]
                return taken
        raise IndexError

    def tuple_of(self, count: int) -> None:
        taken = self._stack[-count:]
        if len(taken) < count:
            raise IndexError
        self._stack[-count:] = [tuple(taken)]

    def append(self, values: list[Any]) -> None:
        self._made_here(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self._made_here(dict)
        if len(values) % 2:
            raise IndexError
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | bytes | int):  # what is nested would be hashed to its bottom
                raise ValueError("has a key that is no name")
            target[key] = value

    def _made_here(self, kind: type) -> Any:
        target = self._stack[-1]
        if type(target) is not kind:
            raise TypeError
        return target

    def put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def get(self, place: int) -> None:
        if place not in self._memo:
            raise IndexError
        self.push(self._memo[place])

    def name(self, module: Any, name: Any) -> None:
        known = _NAMES.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if known is None:
            raise ValueError(f"names {str(module)[:40]}.{str(name)[:40]}, which is no part of batches; nothing of it was run")
        self.push(known)

    def reduce(self) -> None:
        given, named = self._stack.pop(), self._stack.pop()
        if not isinstance(given, tuple):
            raise TypeError
        if named is Name.RECONSTRUCT and len(given) == 3 and given[0] is Name.ARRAY:
            self.push(_Empty())
        elif named is Name.TYPE and 1 <= len(given) <= 3:
            code = _text(given[0])
            if not isinstance(code, str) or code not in _WHOLE:
                raise ValueError(f"has an array of {str(code)[:8] if isinstance(code, str) else 'no type'}, not of whole numbers")
            self.push(_Type(code))
        elif named is Name.ENCODE and len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], str):
            if given[1] not in ("latin1", "latin-1"):
                raise TypeError
            self._left -= len(given[0])
            if self._left < 0:
                raise ValueError("makes more of itself than it is")
            self.push(given[0].encode("latin-1"))
        else:
            raise TypeError

    def build(self) -> None:
        state, target = self._stack.pop(), self._stack.pop()
        if isinstance(target, _Type) and isinstance(state, tuple) and len(state) in (8, 9):
            if state[1] not in (b"|", b"<", b"=", "|", "<", "=") if isinstance(state[1], str | bytes) else True:
                raise ValueError("has numbers of another byte order")
            self.push(target)
        elif isinstance(target, _Empty) and isinstance(state, tuple) and len(state) == 5:
            self.push(_array(*state[1:]))
        else:
            raise TypeError


def _array(shape: Any, kind: Any, by_columns: Any, content: Any) -> np.ndarray:
    """Of the bytes as they lie there, which it shares."""
    is_shape = isinstance(shape, tuple) and len(shape) <= 4 and all(type(each) is int and each >= 0 for each in shape)
    if not is_shape or not isinstance(kind, _Type) or not isinstance(content, bytes):
        raise TypeError
    size = np.dtype(_WHOLE[kind.code]).itemsize
    for each in shape:  # exact, of whatever size
        size *= each
    if size != len(content):
        raise ValueError(
            f"has an array of {len(content):,} bytes whose shape takes {size:,}" if size < 1 << 60 else "has an array of no size"
        )
    flat = np.frombuffer(content, _WHOLE[kind.code])
    return flat.reshape(shape, order="F" if by_columns else "C")


_STEP: dict[bytes, Callable[[_Reader], None]] = {
    b"\x80": _Reader.protocol,
    b"\x95": _Reader.frame,
    b"(": lambda on: on.push(_Mark()),
    b"N": lambda on: on.push(None),
    b"\x88": lambda on: on.push(True),
    b"\x89": lambda on: on.push(False),
    b"K": lambda on: on.push(on._number("<B")),
    b"M": lambda on: on.push(on._number("<H")),
    b"J": lambda on: on.push(on._number("<i")),
    b"\x8a": _Reader.long,
    b"U": lambda on: on.text("<B"),
    b"T": lambda on: on.text("<I"),
    b"C": lambda on: on.text("<B"),
    b"B": lambda on: on.text("<I"),
    b"\x8c": lambda on: on.unicode("<B"),
    b"X": lambda on: on.unicode("<I"),
    b"]": lambda on: on.push([]),
    b"}": lambda on: on.push({}),
    b")": lambda on: on.push(()),
    b"a": lambda on: on.append([on._stack.pop()]),
    b"e": lambda on: on.append(on.since_mark()),
    b"s": lambda on: on.set_items([on._stack.pop(-2), on._stack.pop()]),
    b"u": lambda on: on.set_items(on.since_mark()),
    b"t": lambda on: on.push(tuple(on.since_mark())),
    b"\x85": lambda on: on.tuple_of(1),
    b"\x86": lambda on: on.tuple_of(2),
    b"\x87": lambda on: on.tuple_of(3),
    b"q": lambda on: on.put(on._number("<B")),
    b"r": lambda on: on.put(on._number("<I")),
    b"\x94": lambda on: on.put(len(on._memo)),
    b"h": lambda on: on.get(on._number("<B")),
    b"j": lambda on: on.get(on._number("<I")),
    b"c": lambda on: on.name(on._line(), on._line()),
    b"\x93": lambda on: on.name(on._stack.pop(-2), on._stack.pop()),
    b"R": _Reader.reduce,
    b"b": _Reader.build,
}
"""By their bytes (CPython's Lib/pickletools.py): protocol 2, and what Python 3 writes of the same in protocols 3 and 4."""
