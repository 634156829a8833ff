"""Filling the database: what each option of each layer costs, and what the model's answers lose by it alone.

One walk over the unchanged student gives every layer's moments, from which its options are fitted and tried; another
one gives those of the groups of channels. A layer's options are kept in the store under all that decides about them as
soon as they are known: a survey that was killed goes on behind its last layer, and what is known of another model, of
other samples or by another version is never met.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.cost import cost
from ..ir.graph import Graph, Node
from ..passes.base import Context, Pass, Report
from ..passes.prune import Prune
from ..passes.prune.channels import TRIAL, damage_curves, least
from ..passes.prune.damage import Damage
from ..passes.prune.removal import Scene
from ..passes.walk.linear import Linear, too_small
from ..passes.walk.walk import walk
from ..runtime.profile import node_seconds
from ..runtime.sizes import sizes
from ..storage.fingerprint import Fingerprint
from ..storage.plain import plain, restored
from ..storage.store import Store
from .activation_options import activation_options
from .block_options import inside, removable, removals
from .channel_options import channel_options, reach
from .layer_options import DYNAMIC, PRODUCTS, layer_options
from .plan import pattern
from .replacement_options import inside as whole
from .replacement_options import replaceable, replacement_options
from .space import LayerCost, Option, Site, Space

_KEEP = Option("keep")
LAYERS = 0.5
"""The most of the time that goes to single layers before the rest was looked at."""


def surveyor(look: Callable[[Graph, Context], None]) -> Pass:
    """A pass that changes nothing: `look` is called with the graph as the passes of a build meet it."""

    class Surveyor(Pass):
        name = "survey"
        lossy = True

        def run(self, graph: Graph, ctx: Context) -> Report:
            look(graph.clone(), ctx)
            return Report()

    return Surveyor()


@dataclass(slots=True)
class Survey:
    """One survey of `graph`, which it may edit. `key` stands for the model, the samples and all else that decides about
    the database; `deadline` is the time (`time.monotonic`) after which no further layer is begun; `forms` are those
    that picks may take, and `timed` asks for the time of options."""

    graph: Graph
    ctx: Context
    store: Store | None
    key: str
    deadline: float
    forms: tuple[str, ...]
    timed: bool

    def space(self) -> Space:
        """The database, of as many layers as there was time for."""
        graph, ctx = self.graph, self.ctx
        assert ctx.fit is not None
        total = cost(graph, sizes(graph, ctx.fit))
        scene = Scene.of(graph, ctx.target.channel_alignment)
        seconds = self._seconds(graph) if self.timed else {}
        layers = tuple(
            LayerCost(
                layer.name,
                _match(layer.node),
                float(sum(total.nodes[reader.node].macs for reader in layer.readers)),
                float(np.prod(layer.shape)),
                sum(seconds.get(reader.node, 0.0) for reader in layer.readers),
            )
            for layer in scene.layers
        )
        now = time.monotonic()
        options: dict[str, tuple[Option, ...]] = {}
        self._layers(scene, options, now + LAYERS * (self.deadline - now))
        channels, blocks = self._channels(scene), self._blocks(scene)
        self._layers(scene, options, self.deadline)
        sites = (*channels, *_sites(scene.layers, options), *blocks, *self._replacements(scene))
        unseen = len(layers) - len(options)
        # Without a product, ranges are found of nothing as the model runs, and weights are stored alone.
        products = any(layer.op in PRODUCTS for layer in scene.layers)
        forms = tuple(form for form in self.forms if form != DYNAMIC or products)
        return Space(
            layers, sites, forms or self.forms, float(total.macs), float(total.params), float(total.bytes), unseen
        )

    def _seconds(self, graph: Graph) -> Mapping[Node, float]:
        """Seconds of each node in one run, by the table or as measured here."""
        ctx = self.ctx
        if ctx.latencies is not None:
            return ctx.latencies.by_node(graph)
        nodes = {node.label: node for node in graph}
        document = None if self.store is None else self.store.get(self._key("seconds"))
        if document is not None:  # a search that goes on predicts what it did before
            try:
                kept = restored(Mapping[str, float], json.loads(document))
                return {nodes[label]: seconds for label, seconds in kept.items()}
            except (ValueError, KeyError, RecursionError):
                pass
        assert ctx.held_out is not None
        seconds = node_seconds(graph, next(ctx.held_out.batches(1)), threads=ctx.threads)
        if self.store is not None:
            each = {node.label: one for node, one in seconds.items()}
            self.store.put(self._key("seconds"), json.dumps(each).encode())
        return seconds

    def _layers(self, scene: Scene, done: dict[str, tuple[Option, ...]], deadline: float) -> None:
        """Add to layer -> its options those that are kept, and those that are begun before the `deadline`."""
        for layer in scene.layers:
            if layer.name not in done and (recalled := self._recalled(f"layer {layer.name}")) is not None:
                done[layer.name] = recalled
        missing = [layer for layer in scene.layers if layer.name not in done]
        if not missing or time.monotonic() > deadline:
            return
        small, ctx, held_out = too_small(scene.layers), self.ctx, self.ctx.held_out
        assert held_out is not None
        with (
            Damage(scene.graph, held_out.take(TRIAL, ctx.seed), ctx.threads) as damage,
            ctx.progress.task("survey of layers", len(missing)) as advance,
        ):
            for step in walk(scene.graph, ctx, missing):
                layer = step.layer
                damage.advance(layer.source)
                fixed = bool(small.get(layer)) or layer.source.is_input
                done[layer.name] = layer_options(step, damage, ctx, fixed=fixed, timed=self.timed)
                if "int8" in self.forms:
                    done[layer.name] += activation_options(step, damage, ctx)
                self._keep(f"layer {layer.name}", done[layer.name])
                advance(1)
                if time.monotonic() > deadline:
                    break

    def _channels(self, scene: Scene) -> list[Site]:
        """A site for each group of channels that can go; none where there was no time left to look at them."""
        options = Prune(kind="channels", groups="all", ratio=0.0)
        groups = {
            i: one
            for i, one in enumerate(scene.groups)
            if not one.reason and one.counts() and not any(self.ctx.kept(options, node) for node in one.group.nodes)
        }
        kept = {i: self._recalled(f"channels {one.name}") for i, one in groups.items()}
        missing = {i: least(groups[i]) for i, recalled in kept.items() if recalled is None}
        if missing and time.monotonic() < self.deadline:
            with self.ctx.progress.task("survey of channels"):
                curves = damage_curves(scene, self.ctx, missing)
            for i in missing:
                curve = curves.get(i)
                kept[i] = () if curve is None else channel_options(groups[i], curve.error)
                self._keep(f"channels {groups[i].name}", kept[i] or ())
        names = {reader.node: layer.name for layer in scene.layers for reader in layer.readers}
        return [
            Site(one.name, "channels", _match(one.node), (_KEEP, *more), reach(one, names))
            for i, one in groups.items()
            if (more := kept[i])
        ]

    def _blocks(self, scene: Scene) -> list[Site]:
        """A site for each block that can go; none for those that there was no time to try."""
        edits = removable(scene.graph, self.ctx, timed=self.timed)
        tried = {name: self._recalled(f"block {name}") for name in edits}
        missing = {name: edit for name, edit in edits.items() if tried[name] is None}

        def keep(name: str, option: Option) -> None:
            tried[name] = (option,)
            self._keep(f"block {name}", (option,))

        if missing and time.monotonic() < self.deadline:
            removals(scene.graph, self.ctx, missing, self.deadline, keep)
        names = {reader.node: layer.name for layer in scene.layers for reader in layer.readers}
        return [
            Site(name, "blocks", _match(edit.node), (_KEEP, *options), reach)
            for name, edit in edits.items()
            if (options := tried[name]) and (reach := inside(edit, names))
        ]

    def _replacements(self, scene: Scene) -> list[Site]:
        """A site for each block that another one can stand for; none for those that there was no time to fit."""
        named = replaceable(scene.graph, self.ctx)
        fitted = {name: self._recalled(f"replacement {name}") for name in named}
        missing = {name: place for name, place in named.items() if fitted[name] is None}

        def keep(name: str, options: tuple[Option, ...]) -> None:
            fitted[name] = options
            self._keep(f"replacement {name}", options)

        if missing and time.monotonic() < self.deadline:
            replacement_options(scene.graph, self.ctx, missing, self.deadline, keep, timed=self.timed)
        names = {reader.node: layer.name for layer in scene.layers for reader in layer.readers}
        return [
            Site(name, "replacement", _match(place.node), (_KEEP, *options), within)
            for name, place in named.items()
            if (options := fitted[name]) and (within := whole(place, names))
        ]

    def _recalled(self, about: str) -> tuple[Option, ...] | None:
        document = None if self.store is None else self.store.get(self._key(about))
        if document is None:
            return None
        try:
            options: tuple[Option, ...] = restored(tuple[Option, ...], json.loads(document))
        except (ValueError, RecursionError):
            return None
        return options

    def _keep(self, about: str, options: Sequence[Option]) -> None:
        if self.store is not None:
            self.store.put(self._key(about), json.dumps([plain(one) for one in options]).encode())

    def _key(self, about: str) -> str:
        what = "timed" if self.timed else "", "coded" if "int8" in self.forms else ""
        return Fingerprint("search", self.key, *what, about).text


def _sites(layers: Sequence[Linear], options: Mapping[str, tuple[Option, ...]]) -> list[Site]:
    sites = []
    for layer in layers:
        each = options.get(layer.name, ())
        structures = tuple(one for one in each if one.family not in ("bits", "activations"))
        bits, activations = (tuple(one for one in each if one.family == family) for family in ("bits", "activations"))
        for kind, several in (("structure", (_KEEP, *structures)), ("bits", bits), ("activations", activations)):
            if len(several) > 1:
                sites.append(Site(layer.name, kind, _match(layer.node), several, {layer.name: (1.0,)}))
    return sites


def _match(node: Node) -> str:
    """The pattern that finds a node in an override."""
    return pattern(node.name or (node.outputs[0].name if node.outputs else "") or node.op)
