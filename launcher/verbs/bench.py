"""`bench device +exp=…`: an update of that run on the CPU and on each other device of this machine: time, memory, energy, cost; and which
to use, for the CPU sometimes wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from launcher.beside import layout
from launcher.beside.differences import Section
from launcher.charts import canvas
from launcher.compose.compose import compose
from launcher.errors import ConfigError
from launcher.start import device_bench
from launcher.start.device_bench import Contender
from launcher.verbs.words import Words, text

_NAME = "bench-device.png"
_UNREAD, _NONE = "not readable here", "–"
_OF_WHAT = (
    "Memory: of the CPU all that the process has, of another device what torch has there. Energy: of the CPU all of the processor, of "
    "another device its own board."
)
_WORDS = Words("bench device", "+exp=cifar", {"price": text("cpu:0.10"), "to": text("DIR|FILE.png")})


def bench(words: list[str]) -> int:
    """Print the table and the sentence; draw where `to=` says. It makes no run. Raises ConfigError, RunError."""
    subject, rest = (words[0] if words else ""), words[1:]
    if subject != "device":
        raise ConfigError(f"bench {subject}: there is nothing of that name to be timed; type {_WORDS.usage}")
    if "-m" in rest or "--multirun" in rest:
        raise ConfigError("bench device times one config; leave out --multirun")
    (_, asked, *_), config_words = _WORDS.picked(rest)
    prices = device_bench.prices(asked["price"]) if asked["price"] else {}
    path = canvas.place(asked["to"], _NAME) if asked["to"] else None
    found: list[Contender] = []

    def run(config: DictConfig, overrides: list[str]) -> None:
        found.extend(device_bench.measured(config, overrides))

    compose(config_words, run)
    if path:
        canvas.put(path, _drawn([each for each in found if each.rounds], prices))
    _print(found, prices)
    if path:
        print(path)
    return 0


# ---------------------------------------------------------------- the table


def _print(found: Sequence[Contender], prices: Mapping[str, float]) -> None:
    columns = layout.width()
    for number, each in enumerate(found, 1):
        print("\n".join(layout.wrapped(f"{number}  {each.label}  {each.name or f'no numbers: {each.why}'}", columns)))
    print()
    processes = f"{device_bench.ROUNDS} processes, one after another"
    rows = {title: tuple(say(each) if each.rounds else _NONE for each in found) for title, say in _rows(prices).items()}
    section = Section("an update, data and all", f"{processes} on each device", rows)
    print("\n".join(layout.lines(section, [each.label for each in found], columns)))
    print()
    print("\n".join(layout.wrapped(_OF_WHAT, columns)))
    unused = [kind for kind in prices if kind not in {each.kind for each in found}]
    sentence = _sentence([each for each in found if each.rounds], prices)
    lost = f" The price of {', '.join(unused)} is not used: none was timed." if unused else ""
    print("\n".join(layout.wrapped(sentence + lost, columns)))


def _rows(prices: Mapping[str, float]) -> dict[str, Callable[[Contender], str]]:
    rows: dict[str, Callable[[Contender], str]] = {
        "median": lambda each: _time(each.seconds),
        "quartiles": lambda each: _range(*each.quartiles()),
        "medians of processes": lambda each: _range(*each.medians()),
        "updates (n)": lambda each: str(len(each.times())),
        "samples a second": lambda each: f"{each.samples_per_second:,.0f}",
        "peak memory": lambda each: f"{each.memory_bytes / 2**20:,.0f} MiB",
        "energy": lambda each: _UNREAD if (found := each.joules()) is None else f"{found:.3g} J",
        "an epoch": lambda each: _time(each.epoch_seconds),
    }
    if prices:
        rows["an epoch costs"] = lambda each: "no price" if (cost := each.cost(prices)) is None else f"{cost:.3g}"
    return rows


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:,.3g} s" if seconds < 600 else f"{seconds / 60:,.0f} min"


def _range(low: float, high: float) -> str:
    """In one unit."""
    return f"{low * 1000:.3g} to {_time(high)}" if high < 1 else f"{_time(low)} to {_time(high)}"


def _sentence(found: Sequence[Contender], prices: Mapping[str, float]) -> str:
    """Which to use. Devices whose processes overlap in their medians were not told apart."""
    best = min(found, key=lambda each: each.seconds)
    others = [each for each in found if each is not best]
    if not others:
        return f"There is nothing to choose: {best.label} is the only device of this machine that an update could be timed on."
    next_best = min(others, key=lambda each: each.seconds)
    numbers = f"{_time(best.seconds)} on {best.label} and {_time(next_best.seconds)} on {next_best.label}"
    costs = {each.label: cost for each in found if (cost := each.cost(prices)) is not None}
    cheapest = min(costs, key=costs.__getitem__) if len(costs) == len(found) else best.label
    if next_best.medians()[0] <= best.medians()[1]:
        if len(costs) == len(found):
            return f"Use {cheapest}, where an epoch costs {costs[cheapest]:.3g}: an update takes as long on the next ({numbers})."
        return f"Use either: an update takes {numbers}, which these processes do not tell apart."
    times = f"{next_best.seconds / best.seconds:.3g} times as long"
    if cheapest != best.label:
        dearer = f"{costs[best.label]:.3g} an epoch instead of {costs[cheapest]:.3g}"
        return f"Use {best.label} for time, an update takes {numbers}, {times}; or {cheapest} for money, for the quickest costs {dearer}."
    money = f", and an epoch costs {costs[best.label]:.3g}, the least" if len(costs) == len(found) else ""
    return f"Use {best.label}: an update takes {numbers}, {times}{money}."


# ---------------------------------------------------------------- the picture


def _drawn(found: Sequence[Contender], prices: Mapping[str, float]) -> bytes:
    panels: dict[str, list[float | None]] = {
        "milliseconds of an update": [each.seconds * 1000 for each in found],
        "samples a second": [each.samples_per_second for each in found],
        "peak memory, MiB": [each.memory_bytes / 2**20 for each in found],
        "joules of an update": [each.joules() for each in found],
        "an epoch costs": [each.cost(prices) for each in found],
    }
    panels = {title: values for title, values in panels.items() if any(value is not None for value in values)}
    labels = [each.label for each in found]

    def fill(figure: Any) -> None:
        for place, (title, values) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), place)
            spread = _spread(found) if place == 1 else None
            axes.bar(labels, [value or 0.0 for value in values], yerr=spread, capsize=4, color=[f"C{n % 10}" for n in range(len(found))])
            axes.set_title(title, fontsize="medium")
            axes.tick_params(axis="x", labelrotation=30)

    return canvas.png((2.6 * len(panels), 3.2), fill, "bench device with to=")


def _spread(found: Sequence[Contender]) -> list[list[float]]:
    """From the medians to the quartiles."""
    return [[abs(each.seconds - each.quartiles()[side]) * 1000 for each in found] for side in (0, 1)]
