"""The currency of every lossy pass: one way to make one layer cheaper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Form = TypeVar("Form")


@dataclass(frozen=True, slots=True)
class Choice(Generic[Form]):
    """One way to make one layer: its `cost`, its `error`, and what stands for the layer then.

    `cost` is what the budget counts (MACs, bytes, or nanoseconds measured on the target) and `error` what it does to
    the teacher's answer, in units comparable between layers. `kind` and `settings` (rank, sparsity, kept channels, ...)
    are the pass's own; the unchanged layer is a choice too, of kind "keep" and error 0. `form` is what was fitted by
    these settings, `None` as long as nothing was; `time` how many times as long it takes as the layer, where that was
    asked.
    """

    cost: float
    error: float
    kind: str = "keep"
    settings: Mapping[str, int | float] = field(default_factory=dict)
    form: Form | None = None
    time: float | None = None

    def __str__(self) -> str:
        if not self.settings:
            return self.kind
        return f"{self.kind}({', '.join(f'{k}={v:g}' for k, v in self.settings.items())})"


def frontier(choices: Sequence[Choice[Form]]) -> list[Choice[Form]]:
    """The choices that no other one beats in both cost and error, by rising cost."""
    best: list[Choice[Form]] = []
    for choice in sorted(choices, key=lambda c: (c.cost, c.error)):
        if not best or choice.error < best[-1].error:
            best.append(choice)
    return best
