"""What the rules ask about the blocks of a kernel."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir.dlight.base import ScheduleRule
from tvm.target import Target
from tvm_ffi import structural_equal

from ..cpu.machine import Machine

_REDUCE = 2


class MachineRule(ScheduleRule):  # type: ignore[misc]
    """A rule for a machine. What no rule can cut stays as TVM wrote it, slower but right, and the manifest names
    it (see `pipeline.Objects`)."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def apply(self, func: tirx.PrimFunc, target: Target, tunable: bool) -> s_tir.Schedule | None:
        try:
            return self.schedule(s_tir.Schedule(func))
        except s_tir.ScheduleError:
            return None

    @abstractmethod
    def schedule(self, sch: s_tir.Schedule) -> s_tir.Schedule | None:
        """The kernel, scheduled in place, or none where the rule is not for it."""


def blocks_of(sch: s_tir.Schedule) -> list[Any]:
    """The blocks of the kernel in the order in which they stand, without the root."""
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def annotated(sch: s_tir.Schedule, key: str) -> tuple[Any, dict[str, int]] | None:
    """The block that has the annotation `optc.key`, and all that are said of it by their names behind `optc.`, which
    are taken off it; none where no block has it."""
    block = next((one for one in blocks_of(sch) if f"optc.{key}" in sch.get(one).annotations), None)
    if block is None:
        return None
    notes = {str(name).removeprefix("optc."): int(value) for name, value in sch.get(block).annotations.items()}
    for name in list(sch.get(block).annotations):
        sch.unannotate(block, name)
    return block, notes


def called(sch: s_tir.Schedule, name: str) -> list[Any]:
    """The blocks of this name."""
    return [block for block in blocks_of(sch) if sch.get(block).name_hint == name]


def written_out(sch: s_tir.Schedule, t: Any, m: Any, lane: Any) -> None:
    """A tile of registers: its points and chunks written out, the lanes of a chunk a vector."""
    sch.unroll(t)
    sch.unroll(m)
    sch.vectorize(lane)


def extent(sch: s_tir.Schedule, loop: Any) -> int | None:
    """How often a loop runs, where that is known."""
    size = sch.get(loop).extent
    return int(size) if isinstance(size, tirx.IntImm) else None


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


def is_aligned(sch: s_tir.Schedule, block: Any) -> bool:
    """Whether a block reads, for each element that it writes, those at the same place of buffers of its shape."""
    statement = sch.get(block)
    (written,) = statement.writes
    shape = list(written.source.shape)

    def same(one: Any) -> bool:
        alike = structural_equal(list(one.source.shape), shape)
        return bool(alike) and all(r.min.same_as(w.min) for r, w in zip(one.region, written.region, strict=True))

    return all(same(one) for one in statement.reads)
