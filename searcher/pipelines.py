"""Pipelines that a user would try by hand, without a database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .plan import Plan, quant_in
from .space import FLOAT, Metric
from .task import Aim

STEPS = 0.98
"""The share of a cap that a single pipeline is told to keep."""
NEAR = 0.96
"""The share of a cap from which on what keeps it is near enough."""
LEAST = 0.05
"""The least work that a pipeline is told to leave."""
CODED = 0.26
"""The share of the original's bytes that 8-bit weights leave, with a little beside them."""
HOPELESS = 0.2
"""The share of the bytes that no pipeline on its defaults comes down to: weights have eight bits there."""


@dataclass(frozen=True, slots=True)
class Single:
    """A pipeline that a user would try by hand, with a share of the work that it is told to leave; `text` has a place
    for that share, or for what is taken away."""

    text: str
    work: float = 1.0

    @property
    def plan(self) -> Plan:
        return Plan(self.text.format(left=self.work, gone=1.0 - self.work), ())

    def nearer(self, aim: Aim, costs: Mapping[Metric, float]) -> Single | None:
        """The same with a share that should just keep the caps, after what it cost; `None` where it is near enough, or
        takes no share."""
        most = max((costs[metric] / cap for metric, cap in aim.limited.items() if metric in costs), default=0.0)
        if not most or self.plan.passes == self.text or NEAR <= most <= 1.0:
            return None
        work = self.work * STEPS / most
        return Single(self.text, work) if LEAST <= work < 1.0 else None


def common(aim: Aim, forms: Collection[str]) -> tuple[list[Plan], list[Plan]]:
    """The pipelines that come first, and those that come after them, in layers of `forms` alone.

    The first are those on their defaults; before them the one that most likely keeps caps that they do not. Where work
    alone is limited, what is safe on defaults seldom saves enough, and takes longest: it comes last. Where bytes are
    limited so far that it cannot, it is left out.
    """
    safe = [Plan(passes, (), guard=True) for passes in defaults(aim, forms)]
    others = [one.plan for one in singles(aim, forms)]
    if not _codes(aim, forms):
        return others[:1], [*others[1:], *safe]
    if aim.caps.get("size", 1.0) < HOPELESS:
        return others[:1], others[1:]
    tight = bool({"macs", "params"} & aim.caps.keys()) or aim.caps.get("size", 1.0) < CODED
    return ([*others[:1], *safe], others[1:]) if tight else (safe, others)


def defaults(aim: Aim, forms: Collection[str]) -> list[str]:
    """The pipelines on their defaults that one would try first under the caps; as they are built without a search,
    what does not pay is undone."""
    codes = _codes(aim, forms)
    if codes:
        return [codes, f"prune,svd,{codes}", f"prune:kind=channels,{codes}"]
    return ["prune:kind=channels"] if FLOAT in forms else []


def singles(aim: Aim, forms: Collection[str]) -> list[Single]:
    """The pipelines of one pass, and of a pass before `quant`, that a user would try by hand under the caps."""
    caps, codes = aim.caps, _codes(aim, forms)
    work = min([caps[metric] for metric in ("macs", "params", "latency") if metric in caps], default=1.0)
    if "size" in caps:
        work = min(work, max((4.0 if codes else 1.0) * caps["size"], 0.1))
    # Ranks and channels come in steps: what is told to keep the cap exactly ends just above it.
    work = work if work == 1.0 else STEPS * work
    of = ":of=params" if "params" in caps else ""
    structures = [
        "svd:ratio={left:.3g}:scope=global",
        f"prune:kind=channels:ratio={{gone:.3g}}{of}",
        "prune:kind=blocks:ratio={gone:.3g}",
    ]
    structures = structures if work < 1 else []
    small = caps.get("size", 1.0) < CODED
    plain = [Single(one, work) for one in structures] if FLOAT in forms and not (codes and small) else []
    if not codes:
        return plain
    coded = [Single(f"{one},{codes}", work) for one in structures]
    few = [Single(f"{quant_in(form)}:weights=int4") for form in ("int8", "none") if form in forms]
    return [*few, *coded] if small else [*coded, *plain, *(few if "size" in caps else [])]


def _codes(aim: Aim, forms: Collection[str]) -> str:
    """`quant` in the first form of codes; none where codes save nothing that is limited."""
    form = next((form for form in forms if form != FLOAT), None)
    return quant_in(form) if form is not None and not {"size", "latency"}.isdisjoint(aim.caps) else ""
