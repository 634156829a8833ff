"""Costs and losses of mixtures of options, as a graph that can be differentiated.

With p the softmax of the logits of a site, over the options that it has,

    loss  = sum_site p . (w loss)        cost = (sum_layer own * prod_sites (p . left) + rest) * ratio / whole
    goal  = log loss + price * sum_caps relu(log(cost / cap))

where `left` is what an option leaves of a layer. A product over sites is a sum of logarithms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ir.gradient.differentiate import differentiate
from ..ir.graph import Graph, Value
from ..ir.shapes.infer import infer
from ..ir.types import DType, TensorType
from ..runtime.session import Session
from .space import FLOAT, FORMS, SHARED, Metric, Pick
from .task import Task

Floats = NDArray[np.float32]
_NEVER = -1e4
"""The logit of an option that a site does not have."""
_LEAST = 1e-9


class Relaxed:
    """The relaxation of the picks of one form; `shape` is that of its logits (sites, options)."""

    def __init__(self, task: Task, form: str) -> None:
        self._task, self._form = task, form
        space = task.space
        self._counts = [len(space.options(site, form)) for site in range(len(space.sites))]
        self.shape = len(self._counts), max(self._counts, default=1)
        graph = self._graph = Graph("relaxed", opsets={"": 17})
        logits = graph.add_input("logits", TensorType(DType.FLOAT, self.shape))
        price = graph.add_input("price", TensorType(DType.FLOAT, ()))
        goal = self._goal(logits, price)
        graph.add_output(goal, "goal", TensorType(DType.FLOAT, ()))
        infer(graph)
        gradient = differentiate(graph, {goal: None}, [logits])[logits]
        self._session = Session(graph, outputs=[gradient], threads=1)

    def gradient(self, logits: Floats, price: float) -> Floats:
        """The gradient of the goal by the logits, of their shape."""
        (slope,) = self._session.run({"logits": logits.astype(np.float32), "price": np.asarray(price, np.float32)})
        return np.asarray(slope, np.float32)

    def most_likely(self, logits: Floats) -> Pick:
        return Pick(
            self._form, tuple(int(np.argmax(row[:count])) for row, count in zip(logits, self._counts, strict=True))
        )

    def _goal(self, logits: Value, price: Value) -> Value:
        task, space = self._task, self._task.space
        barred, losses = np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32)
        for site, count in enumerate(self._counts):
            barred[site, count:] = _NEVER
            for i, option in enumerate(space.options(site, self._form)):
                losses[site, i] = task.surrogate.weights.get(option.family, 1.0) * option.loss
        mixed = self._add("Softmax", self._add("Add", logits, self._of(barred)), axis=1)
        base = task.surrogate.weights.get(f"form {self._form}", 0.0) + _LEAST
        loss = self._add("Add", self._sum(self._add("Mul", mixed, self._of(losses))), self._of(base))
        over = [self._over(mixed, metric, cap) for metric, cap in task.aim.caps.items()]
        total = self._add("Log", loss)
        for one in over:
            total = self._add("Add", total, self._add("Mul", price, one))
        return total

    def _over(self, mixed: Value, metric: Metric, cap: float) -> Value:
        """How far a cost is above its cap, as a logarithm; 0 below."""
        task, space = self._task, self._task.space
        numbers = {layer.name: i for i, layer in enumerate(space.layers)}
        edges = [
            (site, numbers[name], shares) for site, one in enumerate(space.sites) for name, shares in one.reach.items()
        ]
        left = np.ones((len(edges), self.shape[1]), np.float32)
        for row, (site, _, shares) in enumerate(edges):
            for i, option in enumerate(space.options(site, self._form)):
                left[row, i] = self._left(site, i, metric, shares, option.kept)
        incidence = np.zeros((len(space.layers), len(edges)), np.float32)
        for row, (_, layer, _) in enumerate(edges):
            incidence[layer, row] = 1.0
        sites = self._graph.constant(np.array([site for site, _, _ in edges], np.int64))
        factors = self._sum(self._add("Mul", self._add("Gather", mixed, sites, axis=0), self._of(left)), keep=True)
        share = self._add("Exp", self._add("MatMul", self._of(incidence), self._add("Log", factors)))
        pick = space.within(space.pick(self._form))
        own = self._own(metric)
        # What is neither a layer's nor changed by any option; the ratio is that of the pick that changes nothing.
        whole = task.surrogate.careful(pick)[metric]
        start = np.exp(incidence @ np.log(left[:, :1])).reshape(-1)
        rest = max(whole - float(own @ start), 0.0)
        cost = self._add(
            "Add", self._sum(self._add("Mul", share, self._of(own.reshape(-1, 1)))), self._of(rest + _LEAST)
        )
        return self._add("Relu", self._add("Sub", self._add("Log", cost), self._of(float(np.log(cap)))))

    def _left(self, site: int, place: int, metric: Metric, shares: tuple[float, ...], kept: float) -> float:
        one = self._task.space.sites[site]
        option = self._task.space.options(site, self._form)[place]
        if one.kind == "bits":
            return option.bits / 32.0 if metric == "size" and self._form != FLOAT else 1.0
        if one.kind == "activations":
            return option.time / FORMS[self._form] if metric == "latency" and self._form == "int8" else 1.0
        if one.kind in SHARED:
            return float(np.prod([1.0 - share * (1.0 - kept) for share in shares]))
        return {"macs": option.macs, "params": option.params, "size": option.params, "latency": option.time}[metric]

    def _own(self, metric: Metric) -> Floats:
        """The share of each layer in the whole, before options."""
        space = self._task.space
        seconds = sum(layer.seconds for layer in space.layers)
        each = {
            "macs": [layer.macs / max(space.macs, 1.0) for layer in space.layers],
            "params": [layer.params / max(space.params, 1.0) for layer in space.layers],
            "size": [4.0 * layer.params / max(space.bytes, 1.0) for layer in space.layers],
            "latency": [FORMS[self._form] * layer.seconds / max(seconds, 1e-30) for layer in space.layers],
        }
        return np.asarray(each[metric], np.float32)

    def _add(self, op: str, *inputs: Value, **attributes: int) -> Value:
        return self._graph.add(op, list(inputs), attributes).output

    def _of(self, data: Floats | float) -> Value:
        return self._graph.constant(np.asarray(data, np.float32))

    def _sum(self, value: Value, *, keep: bool = False) -> Value:
        """Over the last axis where it is to `keep` its number of axes, else over all."""
        if keep:
            return self._add("ReduceSum", value, self._graph.constant(np.array([1], np.int64)), keepdims=1)
        return self._add("ReduceSum", value, keepdims=0)
