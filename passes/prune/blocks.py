"""Block pruning: whole residual branches, gates and layers go, and what stays is fitted to answer for them.

Each block that the graph can do without (`bypass`) is tried alone; the one that loses least for the share of the time
that it saves goes first (`structure.order`). Fewer layers are faster than narrower ones of the same work, and lose less
where samples are few (Wang and Wu 2023, "Practical network acceleration with tiny sets").

Stays: a block whose answer has another shape than what would stand for it, one that an input of the graph needs, and
one that an override keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...ir.graph import Graph, Node
from ...ir.ops import LAYERS
from ..base import Context, Report
from ..structure.driver import Restructuring
from ..structure.edit import Edit, EditKind
from .bypass import block_at, blocks

if TYPE_CHECKING:
    from .prune import Prune


def prune_blocks(options: Prune, graph: Graph, ctx: Context) -> Report:
    """Run `prune:kind=blocks`."""
    return Restructuring(options, options, BlockKind(), "remove", ctx, Report()).run(graph)


class BlockKind(EditKind):
    """Blocks that go."""

    verb = "removed"
    none = "no block can be removed: none has the shape of what would stand for it"

    def edits(self, graph: Graph) -> list[Edit]:
        return list(blocks(graph))

    def at(self, node: Node, number: int) -> Edit | None:
        return block_at(node, number)

    def together(self, named: dict[str, Edit]) -> list[tuple[str, ...]]:
        """The depthwise layers with the layer behind each, which are one convolution in two."""
        by_node = {edit.node: name for name, edit in named.items()}
        pairs: list[tuple[str, ...]] = []
        for node, name in by_node.items():
            if node.op != "Conv" or node.get_int("group", 1) == 1:
                continue
            readers = node.output.users
            while len(readers) == 1 and readers[0].op not in LAYERS and len(readers[0].outputs) == 1:
                readers = readers[0].output.users
            if len(readers) == 1 and readers[0] in by_node:
                pairs.append((name, by_node[readers[0]]))
        return pairs
