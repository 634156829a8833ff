"""Pipelines that a user would try by hand, without a database."""

from __future__ import annotations

from .task import Aim

STEPS = 0.98
"""The share of a cap that a single pipeline is told to keep."""


def defaults(aim: Aim) -> list[str]:
    """The pipelines on their defaults that one would try first under the caps; as they are built without a search,
    what does not pay is undone."""
    if "size" in aim.caps or "latency" in aim.caps:
        return ["prune,svd,quant", "prune:kind=channels,quant"]
    return ["prune:kind=channels"]


def singles(aim: Aim) -> list[str]:
    """The pipelines of one pass, and of a pass before `quant`, that a user would try by hand under the caps."""
    caps = aim.caps
    work = min([caps[metric] for metric in ("macs", "params", "latency") if metric in caps], default=1.0)
    if "size" in caps:
        work = min(work, max(4.0 * caps["size"], 0.1))
    # Ranks and channels come in steps: what is told to keep the cap exactly ends just above it.
    work = work if work == 1.0 else STEPS * work
    of = ":of=params" if "params" in caps else ""
    forms = [f"svd:ratio={work:.3g}:scope=global", f"prune:kind=channels:ratio={1 - work:.3g}{of}"] if work < 1 else []
    if "latency" in caps and work < 1:
        forms.append(f"prune:kind=blocks:ratio={1 - work:.3g}")
    if "size" not in caps and "latency" not in caps:
        return forms
    small = [] if "size" not in caps else ["quant:weights=int4", "quant:weights=int4:activations=none"]
    return [*small, *(f"{one},quant" for one in forms), *(forms if "latency" in caps else [])]
