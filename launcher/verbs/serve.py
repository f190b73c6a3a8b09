"""`serve EXPORT`: a small HTTP server for an exported model, on this machine."""

from __future__ import annotations

from launcher.errors import ConfigError
from launcher.verbs import asking
from launcher.verbs.words import Words, number, text, whole

_WORDS = Words(
    "serve",
    "EXPORT",
    {
        "port": whole(8000, 0, 65_535),
        "host": text("127.0.0.1", "127.0.0.1"),
        **asking.options(batch_size=32, top=5),
        "wait_ms": number(2, 0, 1000, asking.BATCHED),
        "queue": whole(1024, 1, 1 << 20, asking.BATCHED),
        "max_mb": whole(16, 1, 1 << 20),
        "seconds": number(30, 0.1, 3600),
    },
    takes="one export",
    most=1,
)


def serve(words: list[str]) -> int:
    """Raises ConfigError, RunError."""
    typed = _WORDS.read(words)
    values = typed.values
    folder = asking.checked(typed.names[0], typed)
    try:
        from launcher.serve import server
    except ImportError as error:
        raise ConfigError(f"serve needs starlette and uvicorn ({error}); pip install 'launcher[serve]'") from error
    from launcher.serve.app import Limits

    limits = Limits(values["batch_size"], values["wait_ms"] / 1000, values["queue"], values["max_mb"] << 20, values["seconds"])
    server.serve(asking.opened(folder, typed), values["host"], values["port"], limits)
    return 0
