"""The pass `prune`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from ...errors import SpecError
from ..base import Context, Report, option
from ..walk.layer_pass import LayerPass

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from .weights import PruneWeights


@dataclass(frozen=True, slots=True)
class Prune(LayerPass):
    """Drop weights or whole channels, and let the ones that stay make up for it.

    Every layer is fitted to the teacher's answers with the inputs that the pruned layers before it really give. Zeros
    alone make no dense kernel faster: they pay in compressed size, and as n:m where the hardware reads it. Channels
    that go make the tensors smaller, and everything that reads them faster.
    """

    name: ClassVar[str] = "prune"

    kind: Literal["unstructured", "nm", "channels", "blocks"] = option(
        "unstructured",
        "unstructured: any weight; nm: keep n of every m along the reduction axis; channels: whole channels; "
        "blocks: whole residual branches, gates and layers",
    )
    ratio: float | None = option(
        None,
        "share to drop of the weights, of the cost (channels, blocks), or of the channels of every group "
        "(scope=layer); none: as many weights as `error` allows, and as many channels or blocks as are safe",
        low=0.0,
        high=0.99,
        layer=True,
    )
    error: float | None = option(
        None,
        "largest loss in a layer, as a share of its answer's variance (unstructured, where ratio is none); "
        "none: what is safe",
        low=0.0,
        high=1.0,
        layer=True,
    )
    scope: Literal["auto", "layer", "global"] = option(
        "auto",
        "layer: the same ratio in every layer; global: spread where it costs least; auto: global for channels, unless "
        "a layer has a ratio of its own, else layer",
    )
    n: int = option(2, "weights kept of every m (nm)", low=1)
    m: int = option(4, "group size (nm)", low=2)
    groups: Literal["inner", "all"] = option(
        "inner", "channels inside of blocks, or those of residual streams too (channels)"
    )
    of: Literal["auto", "macs", "params", "latency"] = option(
        "auto", "the cost that `ratio` is of (blocks; with scope=global, channels); auto: latency of blocks where "
        "anything tells it, else macs"
    )  # fmt: skip
    remove: bool = option(False, "whether the block that ends there goes, whatever it loses (blocks)", layer=True)
    align: int = option(
        0, "kept channels are multiples of this; 0: of what the target's kernels like (channels)", low=0
    )

    store: Literal["dense", "sparse"] = option(
        "dense", "how weights with zeros are stored; sparse: where that makes the file smaller (unstructured)"
    )

    @property
    def unbounded(self) -> bool:
        return self.kind == "unstructured" and self.ratio is None and self.error is None

    def layerwise(self, ctx: Context) -> PruneWeights:
        from .weights import PruneWeights

        return PruneWeights(self, ctx)

    def run(self, graph: Graph, ctx: Context) -> Report:
        if self.kind == "blocks":
            from .blocks import prune_blocks

            return prune_blocks(self, graph, ctx)
        if self.kind == "channels":
            if self.of == "latency":
                raise SpecError("channels are counted by macs or params; of=latency is for kind=blocks")
            from .channels import prune_channels

            return prune_channels(replace(self, of="macs") if self.of == "auto" else self, graph, ctx)
        if self.kind == "nm" and self.n >= self.m:
            raise SpecError(f"n={self.n} of m={self.m} keeps everything; n must be less than m")
        return LayerPass.run(self, graph, ctx)
