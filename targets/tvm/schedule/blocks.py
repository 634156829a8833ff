"""What the rules ask about the blocks of a kernel."""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx

_REDUCE = 2


def blocks_of(sch: s_tir.Schedule) -> list[Any]:
    """The blocks of the kernel in the order in which they stand, without the root."""
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def extent(sch: s_tir.Schedule, loop: Any) -> int | None:
    """How often a loop runs, where that is known."""
    found = sch.get(loop).extent
    return int(found) if isinstance(found, tirx.IntImm) else None


def is_reduction(sch: s_tir.Schedule, block: Any) -> bool:
    return any(var.iter_type == _REDUCE for var in sch.get(block).iter_vars)


def inline_injective(sch: s_tir.Schedule, *, keep: tuple[str, ...] = ()) -> None:
    """Compute every elementwise stage where it is used, but for those called `keep` and those that are results."""
    for block in blocks_of(sch):
        if sch.get(block).name_hint in keep or is_reduction(sch, block) or is_result(sch, block):
            continue
        sch.compute_inline(block)


def is_result(sch: s_tir.Schedule, block: Any) -> bool:
    """Whether a block writes what the kernel gives back, rather than a buffer of its own."""
    outputs = {sch.get(one).name_hint for one in sch.get_output_blocks(sch.get_sblock("root"))}
    return sch.get(block).name_hint in outputs
