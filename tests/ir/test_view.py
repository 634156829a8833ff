"""Cuts and partitions of a graph, against brute force by networkx on random graphs."""

from __future__ import annotations

from pathlib import Path

import networkx
import numpy as np
import pytest

from optc.ir.graph import Graph, Node, Value
from optc.ir.onnx.reader import load
from optc.ir.types import DType, TensorType
from optc.ir.view import convex_partitions, cut_values

KIND = TensorType(DType.FLOAT, ("N", 4))
SOURCE, SINK = "source", "sink"


def view(graph: Graph) -> networkx.MultiDiGraph:
    """The nodes of `graph` between its inputs and its outputs; an edge has the value that flows along it."""
    places = networkx.MultiDiGraph()
    places.add_nodes_from([SOURCE, *graph, SINK])
    for node in graph:
        for value in (*(v for v in node.inputs if v is not None), *node.captures):
            if value.constant is None:
                places.add_edge(value.producer or SOURCE, node, value=value)
    for output in graph.outputs:
        places.add_edge(output.value.producer or SOURCE, SINK, value=output.value)
    return places


def is_convex(graph: Graph, nodes: list[Node]) -> bool:
    """Whether no path leaves the nodes and comes back."""
    places = view(graph)
    behind = set().union(*(networkx.descendants(places, node) for node in nodes))
    before = set().union(*(networkx.ancestors(places, node) for node in nodes))
    return not (behind & before) - set(nodes)


def random_graph(seed: int, inputs: int = 1, nodes: int = 9) -> Graph:
    """Nodes of one or two operands, mostly recent ones, so that chains and branches both happen."""
    rng = np.random.default_rng(seed)
    graph = Graph("random", opsets={"": 17})
    values = [graph.add_input(f"x{i}", KIND) for i in range(inputs)]
    weight = graph.constant(np.ones(4, np.float32), "w")
    for i in range(nodes):
        picks = [values[max(0, len(values) - 1 - int(rng.geometric(0.6) - 1))] for _ in range(rng.integers(1, 3))]
        op = "Add" if len(picks) == 2 else "Mul"
        values.append(graph.add(op, [picks[0], picks[1] if len(picks) == 2 else weight], name=f"n{i}").output)
    for i, value in enumerate(v for v in values if not v.uses and v.producer is not None):
        if i == 0 or rng.random() < 0.5:
            graph.add_output(value, f"y{i}")
    if not graph.outputs:
        graph.add_output(values[-1], "y")
    graph.sweep()
    return graph


def diamond() -> tuple[Graph, dict[str, Node]]:
    """a -> (b, c) -> d -> e"""
    graph = Graph("diamond", opsets={"": 17})
    x = graph.add_input("x", KIND)
    a = graph.add("Relu", [x], name="a")
    b = graph.add("Neg", [a.output], name="b")
    c = graph.add("Abs", [a.output], name="c")
    d = graph.add("Add", [b.output, c.output], name="d")
    e = graph.add("Relu", [d.output], name="e")
    graph.add_output(e.output, "y", KIND)
    return graph, {n.name: n for n in (a, b, c, d, e)}


def test_a_diamond() -> None:
    graph, n = diamond()
    assert cut_values(graph) == [graph.inputs[0], n["a"].output, n["d"].output, n["e"].output]


def test_what_a_body_captures_flows_into_its_node() -> None:
    graph, n = diamond()
    body = Graph("body")
    body.add_output(body.add("Neg", [n["a"].output]).output, "out")
    condition = graph.constant(np.array(True), "condition")
    either = graph.add("If", [condition], {"then_branch": body, "else_branch": body.clone()}, name="either")
    last = graph.add("Add", [n["e"].output, either.output], name="last")
    graph.set_output(0, last.output)
    assert cut_values(graph) == [graph.inputs[0], n["a"].output, last.output]


def test_what_depends_on_no_input_is_no_way_around() -> None:
    graph, n = diamond()
    first = next(iter(graph))
    constant = graph.add("Neg", [graph.constant(np.ones(4, np.float32))], name="made", before=first)
    n["e"].set_inputs([n["d"].output])
    last = graph.add("Add", [n["e"].output, constant.output], name="last")
    graph.set_output(0, last.output)
    assert n["d"].output in cut_values(graph)


def separates(graph: Graph, value: Value) -> bool:
    """Whether cutting the edges of `value` parts inputs from outputs, and what is before from what is behind."""
    edges = networkx.DiGraph()
    edges.add_nodes_from(graph)
    edges.add_nodes_from([SOURCE, SINK])
    whole = networkx.DiGraph(view(graph))
    for a, b, data in view(graph).edges(data=True):
        if data["value"] is not value:
            edges.add_edge(a, b)
    if not networkx.has_path(whole, value.producer or SOURCE, SINK):
        return False
    before = networkx.ancestors(whole, value.producer) | {value.producer} if value.producer else set()
    before |= {SOURCE}
    behind = [p for p in whole if p not in before and networkx.has_path(whole, SOURCE, p)]
    return SINK not in before and not any(edges.has_edge(a, b) for a in before for b in behind)


@pytest.mark.parametrize("inputs", [1, 2])
def test_cuts_by_brute_force(inputs: int) -> None:
    count = 0
    for seed in range(60):
        graph = random_graph(seed, inputs)
        values = [v for v in (*graph.inputs, *(n.output for n in graph)) if v.uses]
        # An input alone never parts another one from what is behind.
        only = sum(bool(v.uses) for v in graph.inputs) == 1
        want = [v for v in values if separates(graph, v) and (only or v.producer is not None)]
        assert cut_values(graph) == want, seed
        count += len(want)
    assert count > 60


def test_partitions_are_convex_whole_and_in_order() -> None:
    merged = 0
    for seed in range(60):
        graph = random_graph(seed, 2, 14)
        rng = np.random.default_rng(seed)
        label = {node: int(rng.random() < 0.6) for node in graph}
        parts = convex_partitions(graph, label.__getitem__)
        assert sorted(n.name for _, part in parts for n in part) == sorted(n.name for n in graph)
        done: set[Node] = set()
        for mine, part in parts:
            assert {label[n] for n in part} == {mine}
            assert is_convex(graph, part)
            assert networkx.is_weakly_connected(view(graph).subgraph(part))
            reads = {v.producer for n in part for v in n.inputs if v is not None and v.producer is not None}
            assert reads <= done | set(part)
            done |= set(part)
        merged += len(graph) - len(parts)
    assert merged > 200


def test_kit_models_fall_in_two_at_their_blocks(kit: Path) -> None:
    graph = load(kit / "models" / "mobilenetv2.onnx")
    # The shortcuts of ten blocks each go around three convolutions and two activations.
    assert len(cut_values(graph)) == 1 + len(graph) - 5 * 10
    parts = convex_partitions(graph, lambda node: node.op == "Conv")
    assert all(is_convex(graph, part) for _, part in parts)
