"""Channel groups: removing channels gives what zeroing their weights gives, and what must stay says why."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from channel_nets import CASES, Net

from optc.ir.channels.coupled import ChannelGroup, CoupledChannels, channel_groups
from optc.ir.graph import Graph, Value
from optc.ir.onnx.reader import load
from optc.ir.tensor import ArrayTensor
from optc.ir.verify.verify import verify
from optc.models.zoo import load as zoo
from optc.runtime.session import Session
from optc.runtime.synthesise import synthesise


def built(name: str) -> Graph:
    graph = Net()
    if name == "attention":
        # Gelu is an operator from opset 20 on; a square does as well here.
        case = CASES[name]

        class Squared(Net):
            def __call__(self, op: str, *inputs: Value | None, outputs: int = 1, **attributes: object) -> Value:
                if op == "Gelu20":
                    return super().__call__("Mul", inputs[0], inputs[0])
                return super().__call__(op, *inputs, outputs=outputs, **attributes)

        graph = Squared()
        return graph.finish(case(graph))
    return graph.finish(CASES[name](graph))


def zero(keeps: Mapping[ChannelGroup, np.ndarray]) -> None:
    """Zero every weight of the channels that are not kept."""
    for group, keep in keeps.items():
        for member in group.members:
            array = np.array(member.value.numpy())
            gone = [slice(None)] * array.ndim
            gone[member.axis] = np.flatnonzero((member.index >= 0) & ~keep[member.index])  # type: ignore[call-overload]
            # Scales of a quantization divide; the others are factors and terms.
            if member.uses[0][0].op not in ("QuantizeLinear", "DequantizeLinear", "Div"):
                array[tuple(gone)] = 0
            member.value.constant = ArrayTensor(array)


def check(graph: Graph, seed: int, batch: int = 2) -> int:
    """Removed against zeroed, random channels of every group that may lose some; returns how many went."""
    rng = np.random.default_rng(seed)
    zeroed, pruned = graph.clone(), graph.clone()
    left, right = CoupledChannels(zeroed), CoupledChannels(pruned)
    keeps: tuple[dict[ChannelGroup, np.ndarray], dict[ChannelGroup, np.ndarray]] = ({}, {})
    gone = 0
    for a, b in zip(left.groups, right.groups, strict=True):
        assert (a.size, a.reason) == (b.size, b.reason)
        if a.prunable:
            keep = rng.random(a.size) < rng.choice([0.3, 0.6, 0.9])
            keep[rng.integers(a.size)] = True
            keep[(np.flatnonzero(keep)[0] + 1) % a.size] = False
            keeps[0][a] = keeps[1][b] = keep
            gone += int((~keep).sum())
    zero(keeps[0])
    right.prune(keeps[1])
    verify(pruned)
    for group, keep in keeps[1].items():
        for member in group.members:
            assert member.value.constant is not None
            assert member.value.constant.shape[member.axis] <= len(member.index) - (~keep).sum()
    feeds = next(synthesise(graph, batch, seed).batches(batch))
    before = Session(zeroed, optimise=False, threads=1).run(feeds)
    after = Session(pruned, optimise=False, threads=1).run(feeds)
    for x, y in zip(before, after, strict=True):
        assert x.shape == y.shape
        np.testing.assert_allclose(y, x, rtol=0, atol=2e-5 * abs(x).max())
        assert np.isfinite(x).all()
        assert abs(x).max() > 0
    return gone


@pytest.mark.parametrize("name", list(CASES))
def test_removed_is_zeroed(name: str) -> None:
    graph = built(name)
    for seed in range(4):
        assert check(graph, seed + zlib.crc32(name.encode())) > 0


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("residual", [8, 12]),
        ("depthwise_with_multiplier", [8]),
        ("grouped", [6, 4]),
        ("shuffle", [4, 4]),
        ("concat_of_branches", [4, 6, 8]),
        ("split_in_parts", [4, 6]),
        ("split_evenly_for_a_gate", [6]),
        ("split_into_uneven_rest", [6, 6]),
        ("sliced", [3, 7]),
        ("padded_shortcut", [4, 4]),
        ("squeeze_and_excite", [12, 3]),
        ("flattened", [4, 7]),
        ("reshaped_and_summed", [4]),
        ("shared_weight", [6]),
        ("weights_on_the_left", [9]),
        ("attention", [4, 16]),
        ("fused_attention", [4]),
    ],
)
def test_groups_are_as_expected(name: str, sizes: list[int]) -> None:
    groups = channel_groups(built(name))
    assert [g.size for g in groups if g.prunable] == sizes
    assert all(g.reason for g in groups if not g.prunable)


def test_members_map_channels_to_slices() -> None:
    groups = {g.size: g for g in channel_groups(built("flattened"))}
    members = {(m.uses[0][0].op, m.role.value): m for m in groups[4].members}
    gemm = members["Gemm", "consumer"]
    assert gemm.axis == 1
    np.testing.assert_array_equal(gemm.positions(2), np.arange(32, 48))
    assert members["Conv", "producer"].positions(2).tolist() == [2]
    heads = next(g for g in channel_groups(built("fused_attention")) if g.prunable)
    (producer,) = heads.producers
    assert producer.positions(1).tolist() == [3, 4, 5, 15, 16, 17, 27, 28, 29]
    assert [m.positions(1).tolist() for m in heads.consumers] == [[3, 4, 5]]


def reasons(build: Callable[[Net], Value], net: Net | None = None) -> list[str]:
    net = net or Net()
    return [g.reason for g in channel_groups(net.finish(build(net)))]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda n: n.conv(n.x, 6, 5), "graph output 'y'"),
        (lambda n: n.conv(n("Softmax", n.conv(n.x, 6, 5), axis=1), 5, 5), "works across channels"),
        (lambda n: n.conv(n("LRN", n.conv(n.x, 6, 5), size=3), 5, 5), "what it does with channels is not known"),
        (lambda n: n.conv(n("ReduceMean", n.conv(n.x, 6, 5), n.ints(1)), 1, 5), "works across channels"),
        (lambda n: n.conv(n("Add", n.x, n.conv(n.x, 6, 6)), 6, 5), "'x', which it reads beside, cannot shrink"),
        (lambda n: n("Add", n("Size", n.conv(n.x, 6, 5)), n.ints(1)), "what it does with channels is not known"),
        (lambda n: n("Add", n("Shape", n.conv(n.x, 6, 5)), n.ints(1)), "the number of channels is read"),
        (lambda n: n.conv(n("Gather", n.conv(n.x, 6, 5), n.ints(2), axis=0), 5, 5), ""),
        (lambda n: n.conv(n.conv(n.x, 6, 1), 1, 5), "its channels only go all together"),
    ],
)
def test_what_must_stay_says_why(build: Callable[[Net], Value], reason: str) -> None:
    why = reasons(build)[0]
    assert why.endswith(reason) if reason else not why


def test_a_node_without_name_and_outputs_holds_what_it_reads() -> None:
    def build(n: Net) -> Value:
        a = n.conv(n.x, 6, 5)
        n.graph.add("Print", [a], domain="my", outputs=0)
        return n.conv(a, 5, 5)

    assert reasons(build)[0].startswith("Print 'Print'")


def test_a_weight_with_another_reader_stays() -> None:
    def build(n: Net) -> Value:
        bias = n.weight(6)
        a = n("Conv", n.x, n.weight(6, 6, 1, 1), bias)
        return n("Add", n.conv(a, 6, 6), n("Conv", n.x, n.weight(6, 1, 1, 1), bias, group=6))

    assert reasons(build)[0] == "weight 'w1' is also read by Conv 'Conv.2'"


def test_sizes_picked_from_a_shape_do_not_hold_channels() -> None:
    """The exporters' view: Shape, Gather the batch, Concat with -1."""

    def build(n: Net) -> Value:
        a = n.conv(n.x, 6, 4)
        batch = n("Unsqueeze", n("Gather", n("Shape", a), n.graph.constant(np.array(0, np.int64))), n.ints(0))
        flat = n("Reshape", a, n("Concat", batch, n.ints(-1), axis=0))
        return n("MatMul", flat, n.weight(256, 5))

    net = Net()
    graph = net.finish(build(net))
    assert [g.size for g in channel_groups(graph) if g.prunable] == [4]
    assert check(graph, 0) > 0


def test_sizes_sliced_from_a_shape_by_attributes_do_not_hold_channels() -> None:
    """Before operator set 10, Slice has no other inputs than what it cuts."""

    def build(start: int, end: int) -> list[bool]:
        net = Net(opset=9)
        a = net.conv(net.x, 6, 4)
        sizes = net("Cast", net("Slice", net("Shape", a), starts=[start], ends=[end]), to=1)
        net.graph.add_output(net("Reshape", net.conv(a, 4, 8), net.ints(-1)), "z")
        return [g.prunable for g in channel_groups(net.finish(sizes)) if g.size == 4]

    assert build(2, 4) == [True]
    assert build(1, 4) == [False]


def test_prune_refuses_what_would_break() -> None:
    channels = CoupledChannels(built("residual"))
    free = next(g for g in channels.groups if g.prunable)
    fixed = next(g for g in channels.groups if not g.prunable)
    with pytest.raises(ValueError, match="keeps at least one"):
        channels.prune({free: np.zeros(free.size, bool)})
    with pytest.raises(ValueError, match="keeps at least one"):
        channels.prune({free: np.ones(free.size + 1, bool)})
    with pytest.raises(ValueError, match="must stay: graph output"):
        channels.prune({fixed: np.arange(fixed.size) > 0})


def test_keeping_all_changes_nothing() -> None:
    for name in CASES:
        graph = built(name)
        before = str(graph)
        channels = CoupledChannels(graph)
        channels.prune({g: np.ones(g.size, bool) for g in channels.groups})
        assert str(graph) == before, name


@pytest.mark.parametrize(
    "name",
    [
        "digits_dscnn",
        "digits_resnet",
        "digits_transformer",
        "resnet_cifar:depth=8",
        "mobilenet_v2:width=0.35:resolution=96",
    ],
)
def test_zoo(name: str) -> None:
    assert check(zoo(name), 0) > 0


def test_kit(kit: Path) -> None:
    for path in sorted((kit / "models").glob("*.onnx")):
        assert check(load(path), 1) > 0, path.name
