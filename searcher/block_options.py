"""Blocks that can go: each a site with two options, to keep it and to remove it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..ir.graph import Graph, Node
from ..passes.base import Context
from ..passes.prune import Prune
from ..passes.prune.blocks import BlockKind
from ..passes.structure.edit import Edit
from ..passes.structure.order import EditJudge, start, tried
from ..passes.structure.saving import Saving
from .layer_options import LEAST
from .space import Option


def removable(graph: Graph, ctx: Context, *, timed: bool) -> dict[str, Edit]:
    """The blocks of `graph` by name that save enough to be worth a trial, by time or by work."""
    kind, options = BlockKind(), Prune(kind="blocks")
    saving = Saving.in_graph(graph, ctx, "latency" if timed else "macs")
    return {
        name: edit
        for name, edit in kind.named(graph).items()
        if saving.share(edit.nodes) >= kind.worth and not any(ctx.kept(options, node) for node in edit.nodes)
    }


def removals(
    graph: Graph, ctx: Context, edits: Mapping[str, Edit], deadline: float, done: Callable[[str, Option], None]
) -> None:
    """Try to remove each of `edits` alone until the `deadline` (`time.monotonic`); `done` is handed what that loses."""
    judge = EditJudge(graph, ctx)
    trial = start(BlockKind(), graph, Saving.in_graph(graph, ctx, "macs"), edits, {}, judge)
    with ctx.progress.task("survey of blocks", len(edits)) as advance:
        for name in edits:
            if time.monotonic() > deadline:
                return
            if (one := tried(trial, (name,), judge)) is not None:
                done(name, Option("remove", "blocks", {"prune": {"remove": True}}, max(one[1].loss, LEAST), kept=0.0))
            advance(1)


def inside(edit: Edit, names: Mapping[Node, str]) -> dict[str, tuple[float, ...]]:
    """The layers that go with a block, whole."""
    return {names[node]: (1.0,) for node in edit.nodes if node in names}
