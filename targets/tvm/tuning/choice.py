"""What tuning decided about one model, as text that a build records and repeats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from ....storage.plain import plain, restored
from ..compute.workload import Workload
from ..cpu.tiling import Tile


@dataclass(frozen=True, slots=True)
class Cut:
    workload: Workload
    tile: Tile


@dataclass(frozen=True, slots=True)
class TuningChoice:
    """`cuts` are the workloads that are not cut by default; `kernels` counts all of them, `records` is the digest of
    the trials that it rests on, `share` what the kernels of those should take of the time that they take by default."""

    kernels: int
    records: str
    share: float
    cuts: tuple[Cut, ...] = field(default_factory=tuple)

    @property
    def tiles(self) -> Mapping[Workload, Tile]:
        return {cut.workload: cut.tile for cut in self.cuts}

    @property
    def record(self) -> dict[str, object]:
        """What the manifest says of it."""
        return {"kernels": self.kernels, "tuned": len(self.cuts), "records": self.records}

    def to_text(self) -> str:
        return json.dumps(plain(self), sort_keys=True)

    @staticmethod
    def of(text: str) -> TuningChoice:
        """The choice in a text of `to_text`. Raises `ValueError`."""
        choice: TuningChoice = restored(TuningChoice, json.loads(text))
        return choice
