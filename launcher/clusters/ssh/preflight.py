"""Before anything starts: what is wrong with which host, a line each; where the others reach the first."""

from __future__ import annotations

import contextlib
import secrets
import selectors
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from launcher.clusters.ssh.link import Link
from launcher.clusters.ssh.seen import VERSIONS
from launcher.clusters.ssh.words import refusal
from launcher.devices import CPU, counted
from launcher.errors import Stopped

CLOCK_SECONDS = 10.0
"""By which a host's clock may be off: lines of a run are put in order by it."""
_REACH_SECONDS = 2.0


class Answer(NamedTuple):
    said: dict[str, Any]
    asked: float
    """time.time() when it was asked, and when its answer was there."""
    heard: float


class Problems(Exception):
    """Of hosts, by name."""

    def __init__(self, found: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {why}" for name, why in found.items()))
        self.found = dict(found)


def answers(links: Sequence[Link], key: str, until: float) -> dict[int, Answer]:
    """Of each link by its number what it says with that key, as far as it comes before `until` (monotonic) and before ssh ends."""
    asked = time.time()
    found: dict[int, Answer] = {}
    for said in heard(links, until, lambda: all(link.number in found or link.status is not None for link in links)):
        for link, message in said:
            if key in message:
                found[link.number] = Answer(message, asked, time.time())
    return found


def heard(links: Sequence[Link], until: float, is_over: Callable[[], bool]) -> Iterator[list[tuple[Link, dict[str, Any]]]]:
    """What comes, as it comes."""
    with selectors.DefaultSelector() as waiting:
        for link in links:
            for descriptor in link.files:
                waiting.register(descriptor, selectors.EVENT_READ, link)
        while not is_over() and (left := until - time.monotonic()) > 0:
            ready = {key.data for key, _ in waiting.select(min(left, 0.2))}
            said = [(link, message) for link in links for message in link.read()]
            for link in ready:
                if link.status is not None:
                    for descriptor in link.files:
                        with contextlib.suppress(KeyError):
                            waiting.unregister(descriptor)
            yield said


def greet(links: Sequence[Link], device: str, processes: Sequence[int], code: str, seconds: float) -> None:
    """All say who they are, and it is what the run needs. `processes` of each, `code`: the hash of the launcher here. Raises Problems."""
    found = answers(links, "hello", time.monotonic() + seconds)
    problems: dict[str, str] = {}
    hellos: dict[int, dict[str, Any]] = {}
    for link in links:
        if link.number not in found:
            problems[link.host.name] = refusal(link.host.name, link.status, link.err, link.python)
            continue
        answer = found[link.number]
        hello = hellos[link.number] = answer.said["hello"]
        why = str(hello["problem"]) or _of_clock(answer) or _of_devices(hello, device, processes[link.number])
        if not why and hello["code"] != code:
            why = "the launcher that it sees is not the one that is here; put the project where all hosts see the same"
        if why:
            problems[link.host.name] = why
    problems = {**_of_versions(links, hellos), **problems}
    if problems:
        raise Problems({link.host.name: problems[link.host.name] for link in links if link.host.name in problems})


def _of_clock(answer: Answer) -> str:
    there = float(answer.said["hello"]["time"])
    off = max(answer.asked - there, there - answer.heard, 0.0)
    return f"its clock is off by {off:.0f} s; have it set by the network (chrony, NTP)" if off > CLOCK_SECONDS else ""


def _of_devices(hello: Mapping[str, Any], device: str, processes: int) -> str:
    if device == CPU or not hello["sure"] or hello["devices"] >= processes:
        return ""
    return (
        f"it shows {counted(device, hello['devices'])}, and {processes} processes need one each; type cluster.processes_per_node=… or "
        "cluster.device=cpu"
    )


def _of_versions(links: Sequence[Link], hellos: Mapping[int, Mapping[str, Any]]) -> dict[str, str]:
    """Those that differ from the first that has answered."""
    if not hellos:
        return {}
    first = hellos[min(hellos)]
    of = next(link.host.name for link in links if link.number == min(hellos))
    found: dict[str, str] = {}
    for link in links:
        hello = hellos.get(link.number, first)
        for name in (*VERSIONS, "python"):
            minor = name == "python" and hello[name].split(".")[:2] == first[name].split(".")[:2]
            if hello[name] != first[name] and not minor:
                found.setdefault(
                    link.host.name, f"it has {name} {hello[name] or 'not'}, and {of} {first[name] or 'not'}; install the same on all"
                )
    if not first["torch"]:
        found.setdefault(of, "it has no torch; install it, or name another Python: cluster.python=…")
    return found


def meet(links: Sequence[Link], interface: str | None, port: int | None) -> tuple[str, int]:
    """Address and port of the first at which all others reach it. Raises Problems."""
    head, others = links[0], links[1:]
    token = secrets.token_hex(16)
    head.send("listen", port=port, token=token, interface=interface)
    listens = answers([head], "listening", time.monotonic() + _REACH_SECONDS).get(0)
    if listens is None:
        raise Problems({head.host.name: "it has said nothing of a port"})
    said = listens.said
    if said["problem"]:
        raise Problems({head.host.name: f"{said['problem']}; type cluster.port=… of another"})
    if not said["addresses"]:
        what = f"cluster.interface={interface} has no address" if interface else "it has no address but loopback"
        raise Problems({head.host.name: f"{what}; name an interface that the others reach: cluster.interface=…"})
    for link in others:
        link.send("reach", addresses=said["addresses"], port=said["listening"], token=token, seconds=_REACH_SECONDS)
    found = answers(others, "reached", time.monotonic() + 2 * _REACH_SECONDS) if others else {}
    reached: dict[int, list[str]] = {}
    for link in others:
        reached[link.number] = found[link.number].said["reached"] if link.number in found else []
    for address in said["addresses"]:
        if all(address in each for each in reached.values()):
            return address, said["listening"]
    tried = ", ".join(said["addresses"])
    advice = "open it, or type cluster.port=… or cluster.interface=…"
    none = {
        link.host.name: f"it does not reach port {said['listening']} of {head} (tried: {tried}); {advice}"
        for link in others
        if not reached[link.number]
    }
    apart = {link.host.name: f"of {head} it reaches {', '.join(reached[link.number])} alone; type cluster.interface=…" for link in others}
    raise Problems(none or apart)


def take(links: Sequence[Link], processes: Sequence[int], waits: bool, tell: Callable[[str], None], is_asked: Callable[[], bool]) -> None:
    """The devices of all hosts, or of none: two runs that each had half would wait for each other. Where it `waits`, until those that are
    taken are free, or somebody `is_asked` to stop. Raises Problems, Stopped."""
    told = ""
    while True:
        for link in links:
            link.send("take", count=processes[link.number])
        found = answers(links, "taken", time.monotonic() + 5)
        lacking = {
            link.host.name: f"its devices are taken by {found[link.number].said['busy']}" if link.number in found else "it has not answered"
            for link in links
            if link.number not in found or not found[link.number].said["taken"]
        }
        if not lacking:
            return
        for link in links:
            link.send("leave")
        if is_asked():
            raise Stopped("stopped while it waited for devices, before it began")
        if not waits:
            raise Problems(
                {name: f"{why}; type cluster.busy=wait to wait for them, or cluster.busy=share" for name, why in lacking.items()}
            )
        if (now := "; ".join(f"{name}: {why}" for name, why in lacking.items())) != told:
            told = now
            tell(f"waiting for {now}")
        time.sleep(0.5 + secrets.randbelow(1000) / 1000)  # of two that ask at once one comes first
