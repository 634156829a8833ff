"""What tests of the GPU targets need: a driver, models of single operators, and a judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from optc.compiler import compile
from optc.errors import TargetError
from optc.ir.graph import Graph, Value
from optc.ir.shapes.infer import infer
from optc.ir.types import DType, TensorType
from optc.runtime.session import Session
from optc.targets import table

Array = npt.NDArray[np.generic]

DRIVER = "no OpenCL device is here: apt-get install ocl-icd-libopencl1 pocl-opencl-icd"


def need_tvm() -> None:
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")


def need_driver() -> None:
    need_tvm()
    from optc.targets.tvm.gpu.run import require_driver

    try:
        require_driver()
    except TargetError:
        pytest.skip(DRIVER)


class Outputs:
    """A graph whose nodes are outputs, one after the other."""

    def __init__(self, **inputs: Array) -> None:
        self.graph = Graph("outputs", opsets={"": 17})
        self.feeds = inputs
        self.values = {
            name: self.graph.add_input(name, TensorType(DType.of(array.dtype), array.shape))
            for name, array in inputs.items()
        }

    def constant(self, array: object, dtype: type = np.float32) -> Value:
        return self.graph.constant(np.asarray(array, dtype))

    def add(self, op: str, *inputs: str | Value | None, **attributes: object) -> Value:
        values = [self.values[one] if isinstance(one, str) else one for one in inputs]
        value = self.graph.add(op, values, attributes).output  # type: ignore[arg-type]
        self.graph.add_output(value, f"{op}_{len(self.graph.outputs)}")
        return value

    def check(self, folder: Path, spec: str = "opencl", most: float = 2e-6) -> None:
        infer(self.graph)
        answers(self.graph, self.feeds, folder, spec, most)


def answers(graph: Graph, feeds: dict[str, Array], folder: Path, spec: str, most: float) -> None:
    """Fail where the artifact answers otherwise than ONNX Runtime, by more than `most` of an output's scale."""
    wanted: Sequence[Array] = Session(graph.clone(), threads=1, optimise=False).run(feeds)
    target = table.one(spec)
    built = compile(graph, "clean", target=target, output=folder / "a", threads=1, check=False)
    assert built.artifact is not None
    for output, got, want in zip(graph.outputs, target.open(str(folder / "a")).run(feeds), wanted, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape), output.name
        scale = float(np.abs(want[np.isfinite(want)]).max(initial=0)) if want.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(got, want, rtol=0, atol=most * scale, err_msg=output.name)
