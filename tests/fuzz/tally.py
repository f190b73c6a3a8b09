"""What was tried and what was found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fuzz.sandbox import Answer


@dataclass
class Tally:
    """Of some texts; tallies of several workers are added up."""

    cases: Counter[str] = field(default_factory=Counter[str])
    """By verb, and `bash` for scripts that were run; `refused` and `taken` of all pairs of a text and a field."""
    seconds: tuple[float, str] = (0.0, "")
    """The worst, and of what."""
    memory: tuple[int, str] = (0, "")
    found: list[str] = field(default_factory=list[str])

    def note(self, verb: str, text: str, where: object, answer: Answer) -> Answer:
        """Count an answer, and write down each fault of it."""
        what = f"{verb} {where} {_shown(text)}"
        self.cases[verb] += 1
        self.seconds = max(self.seconds, (answer.seconds, what))
        self.memory = max(self.memory, (answer.memory, what))
        self.found += [f"{what}: {fault}" for fault in answer.faults]
        if answer.faults and answer.raised:
            self.found.append("".join(answer.raised.splitlines(keepends=True)[-12:]))
        return answer

    def fault(self, verb: str, text: str, where: object, fault: str) -> None:
        self.found.append(f"{verb} {where} {_shown(text)}: {fault}")

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.seconds, self.memory = max(self.seconds, other.seconds), max(self.memory, other.memory)
        self.found += other.found

    def __str__(self) -> str:
        cases = ", ".join(f"{count:,} {name}" for name, count in sorted(self.cases.items()))
        return (
            f"{cases}\nworst time   {self.seconds[0]:.2f} s of CPU: {self.seconds[1]}\n"
            f"worst memory {self.memory[0] >> 20} MB more: {self.memory[1]}\n{len(self.found)} faults"
        )


def _shown(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) < 160 else f"{shown[:120]}… ({len(text)} characters)"
