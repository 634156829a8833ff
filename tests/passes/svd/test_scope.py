"""A ratio is one of the whole model's cost; layers that can save nothing have no part in it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from optc.compiler import Build, compile
from optc.passes.base import Outcome, Override

from ...real_models import Maker, samples


def chain(*ranks: int) -> onnx.ModelProto:
    """Layers of 64 channels whose weights have these ranks, but for a little noise."""
    make = Maker()
    h = make.add("Tanh", "x")
    for rank in ranks:
        weight = make.rng.standard_normal((64, rank)) @ make.rng.standard_normal((rank, 64)) / (8 * np.sqrt(rank))
        h = make.add(
            "Tanh", make.add("MatMul", h, make.constant(weight + 1e-3 * make.rng.standard_normal((64, 64)), "f4"))
        )
    return make.build({"x": ["N", 64]}, {"y": h})


def built(model: onnx.ModelProto, passes: str, **options: object) -> Build:
    return compile(model, passes, data=samples(300, x=(64,)), guard=False, check=False, **options)


def ranks(build: Build) -> list[object]:
    return [one.detail["rank"] for one in build.report.steps[-1].report.layers if one.outcome is Outcome.DONE]


def test_the_share_is_taken_where_it_costs_least() -> None:
    """Half of the cost of two layers: all of it from the one of low rank."""
    assert ranks(built(chain(8, 64), "svd:ratio=0.63:align=8")) == [8]
    assert ranks(built(chain(8, 64), "svd:ratio=0.63:align=8:scope=layer")) == [16, 16]


def test_a_layer_with_a_ratio_of_its_own_keeps_it() -> None:
    own = [Override(match="MatMul3", passes={"svd": {"ratio": 0.5}})]
    assert ranks(built(chain(8, 64), "svd:ratio=0.63:align=8", overrides=own)) == [16, 16]


@pytest.mark.parametrize("align", [24, 40])
def test_what_the_layers_cannot_save_together_is_asked_of_each(align: int) -> None:
    """The thinnest form keeps .75 of a layer; no form at all saves anything."""
    build = built(chain(8, 64), f"svd:ratio=0.5:align={align}")
    assert ranks(build) == []
    assert [one.outcome for one in build.report.steps[-1].report.layers] == [Outcome.SKIPPED] * 2
    notes = [note for note in build.report.steps[-1].report.notes if "cannot keep 0.5" in note]
    assert len(notes) == (align == 24)
