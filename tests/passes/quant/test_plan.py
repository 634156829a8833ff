"""The plan: the scheme of every node, by options, overrides and names."""

from __future__ import annotations

import pytest
from facts import facts_of
from quantized import cleaned

from optc.errors import SpecError
from optc.ir.types import DType
from optc.passes.base import Context, Override
from optc.passes.quant import Quant
from optc.passes.quant.layers import find_layers
from optc.passes.quant.plan import check_options, plan, smallest, with_smallest_kept
from optc.passes.quant.scheme import FREE, Form, Scheme, alike, left_float, of_copy


def context(*overrides: Override) -> Context:
    return Context(facts_of(), overrides=overrides)


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        (Quant(), Scheme(Form.INTEGER)),
        (Quant(weights="int3", per_channel=False), Scheme(Form.INTEGER, 3, per_channel=False)),
        (Quant(weights="codebook"), Scheme(Form.INTEGER, 4, codebook=True)),
        (Quant(activations="dynamic"), Scheme(Form.DYNAMIC)),
        (Quant(activations="none"), Scheme(Form.STORED)),
        (Quant(weights="int4", block=32), Scheme(Form.STORED, 4, block=32)),
        (Quant(weights="bfloat16"), Scheme(Form.STORED, 16, half=DType.BFLOAT16)),
    ],
    ids=str,
)
def test_options_say_the_scheme_of_every_node(options: Quant, scheme: Scheme) -> None:
    graph = cleaned("digits_dscnn")
    schemes = plan(graph, options, context())
    assert list(schemes) == list(graph.walk())
    assert set(schemes.values()) == {scheme}


def test_what_is_kept_stays_float_with_the_reason() -> None:
    graph = cleaned("digits_dscnn")
    first, second, *_ = [node for node in graph if node.op == "Conv"]
    override = Override(match=second.label, keep=True)
    schemes = plan(graph, Quant(keep=first.label), context(override))
    assert schemes[first] == Scheme(reason="kept by name")
    assert schemes[second] == Scheme(reason=f"kept by {override}")
    layers, skipped = find_layers(graph, schemes, Form.INTEGER)
    assert skipped[first] == "kept by name"
    assert first not in layers
    assert second not in layers


def test_a_layer_has_options_of_its_own() -> None:
    graph = cleaned("digits_dscnn")
    gemm = next(node for node in graph if node.op == "Gemm")
    override = Override(op="Gemm", passes={"quant": {"weights": "int4", "activations": "dynamic"}})
    schemes = plan(graph, Quant(), context(override))
    assert schemes[gemm] == Scheme(Form.DYNAMIC, 4, named=True)
    assert gemm not in find_layers(graph, schemes, Form.INTEGER)[0]
    assert find_layers(graph, schemes, Form.INTEGER)[1][gemm] == "its own options make it dynamic"
    assert list(find_layers(graph, schemes, Form.DYNAMIC)[0]) == [gemm]
    groups = alike(find_layers(graph, schemes)[0].values(), schemes)
    assert [scheme.form for scheme in groups] == [Form.INTEGER, Form.DYNAMIC]


def test_the_smallest_keep_eight_bits_unless_they_say_themselves() -> None:
    graph = cleaned("digits_resnet")
    layers = list(find_layers(graph)[0].values())
    schemes = plan(graph, Quant(weights="int4"), context())
    small = smallest(layers, 0.16)
    kept = with_smallest_kept(schemes, layers, 4)
    assert {node for node in kept if kept[node].bits == 8} == small
    one = next(iter(small))
    schemes[one] = Scheme(Form.INTEGER, 4, named=True)
    assert with_smallest_kept(schemes, layers, 4)[one].bits == 4
    assert with_smallest_kept(schemes, layers, 8) == schemes


def test_schemes_of_a_copy_and_of_what_is_left_float() -> None:
    graph = cleaned("digits_dscnn")
    schemes = plan(graph, Quant(), context())
    node = next(node for node in graph if node.op == "Conv")
    copy = graph.clone()
    twins = of_copy(left_float(schemes, {node: "slow"}), graph, copy)
    assert [twins[twin].reason for twin in copy] == ["slow" if one is node else "" for one in graph]
    assert not FREE.reason


@pytest.mark.parametrize(
    ("options", "wanted", "message"),
    [
        (Quant(), {"weights": "auto"}, "no single layer"),
        (Quant(), {"activations": "int16"}, "whole model"),
        (Quant(activations="none", weights="int3"), {}, "needs integer or dynamic"),
        (Quant(activations="dynamic", weights="auto"), {}, "activations=int8 alone"),
    ],
)
def test_options_that_exclude_each_other(options: Quant, wanted: dict[str, object], message: str) -> None:
    override = Override(op="Gemm", passes={"quant": wanted})
    with pytest.raises(SpecError, match=message):
        check_options(options, cleaned("digits_dscnn"), context(override))


def test_the_least_bits_are_those_of_the_narrowest_layer() -> None:
    override = Override(op="Gemm", passes={"quant": {"weights": "int3"}})
    assert check_options(Quant(), cleaned("digits_dscnn"), context(override)) == 3
