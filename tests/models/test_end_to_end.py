"""Each mobile family through every pass, narrow and with random weights: what is done, what is left and why."""

from __future__ import annotations

import numpy as np
import pytest

import optc
from optc.passes.base import Outcome
from optc.runtime.islands import islands
from optc.runtime.session import Session

THINNED = "prune:kind=channels:ratio=0.2:align=2,svd:ratio=0.8:align=2,distill:steps=2,quant:slower=int8"
MASKED = "prune:kind=nm,depthwise,quant:slower=int8"
FAMILIES = (
    ("mobilenet_v1:alpha=0.25", MASKED),
    ("mobilenet_v2:width=0.35", THINNED),
    ("mobilenet_v3_small:width=0.35:pads=tf", THINNED),
    ("efficientnet_b0:width=0.25:depth=0.3", THINNED),
    ("efficientnet_lite0:width=0.25:depth=0.3:pads=tf", MASKED),
    ("mnasnet_a1:width=0.35", MASKED),
    ("nasnet_mobile:repeats=1:filters=96:stem=8", THINNED),
)
SIZE = 32
IMAGES = np.random.default_rng(0).normal(size=(8, 3, SIZE, SIZE)).astype(np.float32)
pytestmark = pytest.mark.slow


REASONS = {
    "prune": (
        "that go at a time", "a residual stream", "graph output", "cheaper elsewhere",
        "its channels only go all together",
        "it reads the model's input", "every one of them matters", "too few to matter",
    ),
    "svd": (
        "it reads the model's input", "too few to matter", "grouped convolution: thin already", "no rank in steps of 2",
        "cheaper elsewhere",
    ),
    "depthwise": ("separable already", "no spatial kernel", "it reads the model's input"),
    "distill": ("did not make the held-out loss less",),
    "quant": (),
}  # fmt: skip
"""What a person accepts of each pass, in its words."""


@pytest.mark.parametrize(("network", "passes"), FAMILIES)
def test_a_family_goes_through_the_passes(network: str, passes: str) -> None:
    """What is removed, factored, taught and runs in integers, and that nothing is left for other reasons than those."""
    spec = f"zoo:{network}:resolution={SIZE}:classes=10"
    build = optc.compile(
        spec, passes, target="onnx:cpu=x86", data={"input": IMAGES}, threads=1, check=False, guard=False
    )
    macs = {step.name: step.after.macs for step in build.report.steps}
    assert passes is MASKED or macs["svd"] < 0.95 * build.report.before.macs
    assert islands(build.graph) == ()
    for step in build.report.steps:
        if (name := step.name.partition(":")[0]) in REASONS:
            reasons = {layer.reason for layer in step.report.layers if layer.reason}
            assert not {reason for reason in reasons if not any(part in reason for part in REASONS[name])}
            # What networks of random weights answer, two steps need not improve.
            assert name in ("depthwise", "distill") or step.report.count(Outcome.DONE)
    (answers,) = Session(build.graph, threads=1).run({"input": IMAGES})
    assert np.isfinite(answers).all()
