"""Small networks quantized as the runner would, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from facts import facts_of

from optc.ir.graph import Graph, Node
from optc.ir.onnx.writer import to_bytes
from optc.ir.shapes.infer import infer
from optc.ir.verify.verify import verify
from optc.models import zoo
from optc.passes.base import Context, Override, Report, TargetFacts
from optc.passes.clean import Clean
from optc.passes.quant import Quant
from optc.runtime.session import Session
from optc.runtime.sources import load_samples
from optc.targets.tvm.legal.integer_layers import coded_layer


def quantized(
    graph: Graph,
    samples: dict[str, np.ndarray],
    one: Quant | None = None,
    *,
    overrides: tuple[Override, ...] = (),
    **facts: object,
) -> Report:
    """Quantize in place, as the runner would."""
    held_out = load_samples(samples, graph)
    ctx = Context(
        facts_of(**facts),  # type: ignore[arg-type]
        fit=held_out,
        held_out=held_out,
        threads=1,
        overrides=overrides,
    )
    # Which layers do not pay is measured, so a test that does not ask for that must not depend on it.
    one = one or Quant(slower="int8")
    one.requires(graph, ctx)
    report = one.run(graph, ctx)
    graph.sweep()
    graph.sort()
    infer(graph, fresh=True)
    verify(graph)
    return report


def runtime_ops(graph: Graph, folder: Path) -> Counter[str]:
    """The ops that ONNX Runtime is left with after its own optimisation."""
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(to_bytes(graph), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def layers_on_codes(graph: Graph) -> list[Node]:
    """The nodes that libraries compute with integers, in order."""
    return [node for node in graph if coded_layer(node) is not None]


def cleaned(name: str) -> Graph:
    graph = zoo.load(name)
    infer(graph)
    Clean().run(graph, Context(TargetFacts("test")))
    infer(graph, fresh=True)
    return graph


def signal_to_noise(teacher: Graph, graph: Graph, feeds: dict[str, np.ndarray]) -> float:
    """Of the first output of a graph, against that of the float one, in decibels."""
    want, got = (np.asarray(Session(one, threads=1).run(feeds)[0], np.float64) for one in (teacher, graph))
    return float(10 * np.log10((want**2).sum() / ((want - got) ** 2).sum()))
