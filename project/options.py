"""The options of one compilation, as the command line and the configuration file give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..compiler import Build, Data
    from ..compiler.locked import Locked
    from ..passes.base import Override, Progress
    from ..passes.observers import Observer
    from ..targets.tuning import Device

Layout = Literal["auto", "NCHW", "NHWC"]


@dataclass(frozen=True, slots=True)
class Options:
    """The fields are those of `optc.compile` and `optc.Data`; `data` is a path, and `samples` the most to use."""

    passes: str = "prune,svd,quant"
    data: str | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "auto"
    resize: tuple[int, int] | None = None
    samples: int | None = None
    seed: int = 0
    threads: int = 0
    clean: bool = True
    guard: bool = True
    min_agreement: float | None = None
    budget: str | None = None
    check: bool = True
    overrides: tuple[Override, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    freeze: bool = False
    latency_table: str | None = None
    tune: float | None = None
    tune_records: str | None = None

    def samples_from(self) -> Data:
        from ..compiler import Data

        return Data(self.data, self.mean, self.std, self.layout, self.resize, self.samples)

    def compile(
        self,
        model: str,
        *,
        target: str,
        output: str,
        device: Device | None = None,
        cache: str | None = None,
        lock: Locked | Mapping[str, Locked] | None = None,
        trail: bool = False,
        observers: Sequence[Observer] = (),
        progress: Progress | None = None,
    ) -> Build:
        """See `optc.compile`."""
        from ..compiler import compile

        return compile(
            model,
            self.passes,
            target=target,
            output=output,
            data=self.samples_from(),
            seed=self.seed,
            threads=self.threads,
            clean=self.clean,
            guard=self.guard,
            min_agreement=self.min_agreement,
            budget=self.budget,
            check=self.check,
            trail=trail,
            overrides=self.overrides,
            shapes=self.shapes,
            freeze=self.freeze,
            latency_table=self.latency_table,
            tune=self.tune,
            tune_records=self.tune_records,
            device=device,
            cache=cache,
            lock=lock,
            observers=observers,
            progress=progress,
        )
