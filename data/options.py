"""What the constructors of data sets check of their options: one line that names the key and says what to type."""

from __future__ import annotations

import os
from pathlib import Path


def one_of(key: str, value: object, valid: tuple[str, ...]) -> None:
    """Raises ValueError."""
    if value not in valid:
        raise ValueError(f"{key}={value}: not known; type one of {', '.join(valid)}")


def whole(key: str, value: object, least: int, most: int | None = None) -> None:
    """Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{key}={value}: not possible; type a whole number {span}")


def cache_of(cache: str | None) -> Path:
    """Where what is made once goes: `cache`, else $LAUNCHER_CACHE, else ~/.cache/launcher."""
    return Path(cache or os.environ.get("LAUNCHER_CACHE") or "~/.cache/launcher").expanduser().absolute()


def share(key: str, value: object, beside: float = 0.0) -> None:
    """Of the samples. `beside`: another share that is held out too. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{key}={value}: not possible; type a share from 0 to below 1")
    if value + beside >= 1:
        raise ValueError(
            f"{key}={value}: with {beside} held out beside it nothing is left to train on; type shares of less than 1 together"
        )
