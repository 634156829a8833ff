"""A network that was trained wider than it need be: each convolution is two with nothing between, as they are exported.

Collapsible linear blocks (Bhardwaj et al. 2022, "Collapsible linear blocks for super-efficient super resolution"): a
kernel spreads to many channels, a pointwise one brings them back, and an activation follows only then.
"""

from __future__ import annotations

import numpy as np
from walked import Net

import optc
from optc.compiler import Build
from optc.ir.graph import Graph, Value
from optc.passes.base import Outcome

WIDTH, SPREAD, BLOCKS = 8, 96, 3


def block(net: Net, x: Value, inputs: int, outputs: int, k: int) -> Value:
    return net.conv(net.conv(x, SPREAD, inputs, k), outputs, SPREAD, 1, pads=[0] * 4)


def super_resolution() -> Graph:
    """Twice as many pixels a side out of one channel."""
    net = Net(channels=1, size=32)
    first = value = net.add("Relu", block(net, net.x, 1, WIDTH, 5))
    for _ in range(BLOCKS):
        value = net.add("Relu", net.add("Add", block(net, value, WIDTH, WIDTH, 3), value))
    value = block(net, net.add("Add", value, first), WIDTH, 4, 5)
    return net.done(net.add("DepthToSpace", value, blocksize=2))


def merged() -> Build:
    data = {"x": np.random.default_rng(0).normal(size=(48, 1, 32, 32)).astype(np.float32)}
    return optc.compile(super_resolution(), "merge", data=data, threads=1)


def test_merge_pays_by_default() -> None:
    build = merged()
    report = build.report
    layers = [layer for step in report.passes for layer in step.report.layers]
    assert [layer.outcome for layer in layers] == [Outcome.DONE] * (BLOCKS + 2), [layer.reason for layer in layers]
    assert [node.op for node in build.graph].count("Conv") == BLOCKS + 2
    assert report.after.macs < 0.2 * report.before.macs
    assert report.after.bytes < 0.3 * report.before.bytes
    assert report.agreement is not None
    assert report.agreement.outputs[0].loss < 1e-6
    assert report.latency is not None
    assert report.latency.ratio < 0.8
