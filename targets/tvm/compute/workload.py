"""What decides about the time of a contraction, and how it may be cut.

A workload is known by what its kernel computes (shapes, element types, attributes), not by the weights: layers alike
are one workload. The target's facts give it a tile (`default`); `candidates` lists what a tuner may try instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from ..cpu.machine import Machine
from ..cpu.tiling import Tile, ranked
from ..cpu.tiling import cycles as cycles_a_sum
from . import winograd
from .window import Window

_SPARE = 2
"""Registers that hold products of codes on their way into the sums."""
_AHEAD = 5
"""One register of so many is for weights that are read before their turn, where a step takes several groups."""
_FEW_ROWS = 4
_TRIED = 10
"""Register tiles that are worth a trial: those that should need the fewest cycles."""
_UNROLLS = (16, 64, 128, 512)
_NEAR, _FAR = 1 << 20, 8
"""Bytes of weights that a cache holds from strip to strip, and bytes a cycle of those that come from further away."""
_REREAD = 0.5
"""Cycles that a register of weights costs minimal filtering beyond a load: each tile of sums reads other ones."""
_TRANSFORM = {"winograd": 40, "winograd4": 200}
"""Cycles a register that it takes to transform the inputs or the sums of one tile."""
_GAIN = 0.9
"""Minimal filtering must take less than this share of the time that summing up takes."""
_WORTH = 50_000
"""Cycles that tiles of 4 x 4 must save of those of 2 x 2, which are compiled in half of the time and lose no digits."""
_LARGEST = 1 << 20
"""Bytes of the weights of tiles of 4 x 4 at most: what stays in a near cache."""
_STRIPS = (8 << 10, 24 << 10, 96 << 10, 1 << 30)


@dataclass(frozen=True, slots=True)
class Workload:
    """A kernel by its name in `compute`. `data` is the shape of its first input, with `None` for sizes that are known
    only when it runs; `weights` that of its second as the model has it, [Co, Ci / groups, KH, KW] or [K, N]."""

    kernel: str
    data: tuple[int | None, ...]
    dtype: str
    weights: tuple[int | None, ...]
    window: Window | None = None
    groups: int = 1

    @property
    def text(self) -> str:
        """All of it, the same for the same workload."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def fixed(self) -> bool:
        """Whether every size but the number of samples is known."""
        return None not in (*self.data[1:], *self.weights) and (len(self.data) > 2 or self.data[0] is not None)

    def default(self, machine: Machine) -> Tile:
        """The tile that the facts of the machine speak for."""
        rows = self._rows
        if self.kernel in ("dense", "dense_codes") and len(self.data) == 2 and (rows is None or rows < _FEW_ROWS):
            # Rows are samples here, and mostly there is one: weights are read once, and that is the time it takes.
            return Tile(1 if rows == 1 else 2, 4)
        return self._ranked(machine)[0]

    def candidates(self, machine: Machine) -> Iterator[tuple[str, tuple[Tile, ...]]]:
        """What may be tried, one property of a tile after the other, with its name; values start from the default.

        A tuner takes the best of the first list, gives it the properties of the next, and so on.
        """
        start = self.default(machine)
        yield "tile", tuple(dict.fromkeys((start, *self._ranked(machine)[:_TRIED])))
        if self.kernel != "dense":
            yield "unroll", tuple(replace(start, unroll=size) for size in _UNROLLS)
        if self.kernel in winograd.SCHEMES:
            return
        if self.kernel == "depthwise":
            yield "strip", tuple(replace(start, strip=size) for size in _STRIPS)
        else:
            yield "across", (start, replace(start, across=True))

    def cycles(self, machine: Machine) -> float:
        """About how long one sample takes, of a convolution of floats without groups whose sizes are known."""
        assert self.window is not None
        co, ci = (-(-(size or 1) // machine.block) for size in self.weights[:2])
        tile, terms = self.default(machine), math.prod(size or 1 for size in self.weights[1:])
        height, width = self.window.output
        read, sums = 4 * terms * co * machine.block, height * width
        scheme = winograd.SCHEMES.get(self.kernel)
        if scheme is None:
            return _rounded(sums, tile) * terms * co * machine.vectors * cycles_a_sum(*tile.cut, machine) + read / _FAR
        (down, across), rows = winograd.tiles(self.window, scheme), winograd.strip(self.window, scheme)
        strips, read = -(-down // rows), read * scheme.size**2 // 9
        one = scheme.size**2 * terms / 9 * co * cycles_a_sum(*tile.cut, machine)
        moved = _TRANSFORM[self.kernel] * (ci + co) * rows * across
        taken = strips * machine.vectors * (_rounded(rows * across, tile) * one + moved)
        return taken + read / _FAR * (strips if read > _NEAR else 1)

    def _ranked(self, machine: Machine) -> tuple[Tile, ...]:
        holding = machine.holding(self.dtype)
        exact, spare = self.groups > 1, self._spare(machine)
        reread = _REREAD if self.kernel in winograd.SCHEMES else 0.0
        tiles = ranked(*self._space(machine), holding, row=self._row, exact=exact, spare=spare, reread=reread)
        rows = machine.matrix.rows if self.kernel == "conv_matrix" and machine.matrix is not None else 1
        return tuple(tile for tile in tiles if tile.points % rows == 0) or (Tile(rows, 1),)

    @property
    def _rows(self) -> int | None:
        return self.data[-2] if len(self.data) > 1 else None

    @property
    def _row(self) -> int | None:
        if self.window is None or self.window.pointwise:
            return None
        scheme = winograd.SCHEMES.get(self.kernel)
        return self.window.output[1] if scheme is None else winograd.tiles(self.window, scheme)[1]

    def _spare(self, machine: Machine) -> int:
        if not self.kernel.endswith(("_codes", "_matrix")):
            return 0
        grouped = self.kernel.endswith("_codes") and machine.dot is not None and machine.dot.grouped
        return max(_SPARE, machine.registers // _AHEAD) if grouped else _SPARE

    def _space(self, machine: Machine) -> tuple[int, int | None]:
        """Blocks of output channels, and points, that tiles are to cover."""
        if self.kernel == "matmul":
            return 2, None
        if self.window is None:
            return -(-(self.weights[1] or 1) // machine.block), self._rows
        if (scheme := winograd.SCHEMES.get(self.kernel)) is not None:
            count = winograd.strip(self.window, scheme) * winograd.tiles(self.window, scheme)[1]
            return -(-(self.weights[0] or 1) // machine.block), count
        height, width = self.window.output
        depthwise = self.kernel.startswith("depthwise")
        return 1 if depthwise else -(-(self.weights[0] or 1) // machine.block) // self.groups, height * width


def _rounded(points: int, tile: Tile) -> int:
    """The points that are computed: whole tiles of them."""
    return -(-points // tile.points) * tile.points


def fastest(machine: Machine, data: tuple[int | None, ...], weights: tuple[int, ...], window: Window) -> str:
    """The kernel that should take the least time, of a convolution of 3 x 3 that all of them are for: `conv`,
    `winograd`, or `winograd4` where that is worth its compilation."""
    sums, small, large = (
        Workload(kernel, data, "float32", weights, window).cycles(machine) for kernel in ("conv", *winograd.SCHEMES)
    )
    kept = 4 * winograd.F4.size**2 * weights[0] * weights[1]
    if kept <= _LARGEST and large <= min(small, _GAIN * sums) - _WORTH:
        return "winograd4"
    return "winograd" if small <= _GAIN * sums else "conv"
