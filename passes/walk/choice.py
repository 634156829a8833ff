"""The currency of every lossy pass: one way to make one layer cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to make one layer: its `cost`, its `error`, and the settings from which the pass builds it.

    `cost` is what the budget counts (MACs, bytes, or nanoseconds measured on the target) and `error` what it does to
    the teacher's answer, in units comparable between layers. `form` and `settings` (rank, sparsity, kept channels,
    ...) are the pass's own; the unchanged layer is a choice too, of form "keep" and error 0.
    """

    cost: float
    error: float
    form: str = "keep"
    settings: Mapping[str, int | float] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.settings:
            return self.form
        return f"{self.form}({', '.join(f'{k}={v:g}' for k, v in self.settings.items())})"


def frontier(choices: list[Choice]) -> list[Choice]:
    """The choices that no other one beats in both cost and error, by rising cost."""
    best: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.cost, c.error)):
        if not best or choice.error < best[-1].error:
            best.append(choice)
    return best
