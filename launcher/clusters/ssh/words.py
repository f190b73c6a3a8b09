"""What ssh says when it comes to nothing, in words that say what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

_KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed|No .* host key is known",
        "its host key is not the one that is known here, or is not known yet; look whether it is the right machine, by: ssh {host}",
    ),
    (
        r"Permission denied \(([^)]*)\)|Too many authentication failures|no mutual signature|sign_and_send_pubkey",
        "it lets nobody in from here without a password; give it your key: ssh-copy-id {host} (or unlock the key: ssh-add)",
    ),
    (
        r"Could not resolve hostname|Name or service not known|Temporary failure in name resolution",
        "its name cannot be resolved; look at: ssh {host}",
    ),
    (r"Connection refused", "no ssh listens there ({line}); look at: ssh {host}"),
    (r"timed out|No route to host|Network is unreachable|Host is down", "it cannot be reached ({line})"),
    (r"Bad owner or permissions|bad configuration option", "ssh does not take its own configuration ({line})"),
    (
        r"jump|kex_exchange_identification|Connection closed|Connection reset|banner exchange",
        "it closed the connection ({line}); look at: ssh {host}",
    ),
    (r"This account is (currently )?not available|Account .* expired|password has expired", "its account may not log in ({line})"),
)


def refusal(host: str, status: int | None, err: Sequence[str], python: str) -> str:
    """In one line, without the name. `status`: ssh's own end, 255 where it is ssh that failed; None where it lives and has said nothing."""
    lines = [line.strip() for line in err if line.strip() and not line.startswith("Warning: Permanently added")]
    last = lines[-1][:160] if lines else ""
    if status is None:
        return f"it has not answered ({last})" if last else "it has not answered"
    if status == 255 or any("Host key verification failed" in line for line in lines):
        for pattern, said in _KNOWN:
            if found := next((line for line in lines if re.search(pattern, line, re.IGNORECASE)), None):
                return said.format(host=host, line=found[:160])
    if status in (126, 127) or any("not found" in line or "No such file" in line for line in lines[-1:]):
        return f"there is no Python at {python} ({last or f'status {status}'}); type cluster.python={{{host}:/path/to/python}}"
    if any("No module named 'launcher'" in line for line in lines):
        return "it does not see this project's directory; put the project where all hosts see it"
    return f"it ended with status {status} ({last or 'no word'})"
