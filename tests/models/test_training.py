"""What PyTorch trains is what ONNX Runtime runs."""

from __future__ import annotations

import numpy as np
import pytest

from optc.errors import ModelError
from optc.ir.graph import Graph
from optc.ir.onnx.writer import to_bytes
from optc.ir.types import DType, TensorType
from optc.models import digits
from optc.models.builder import he

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", digits.NETWORKS)
def test_torch_and_onnx_runtime_agree(name: str) -> None:
    import onnxruntime

    from optc.models.torch_graph import TorchGraph

    graph = digits.NETWORKS[name](he(5))
    images = digits.images("calib")[:32]
    session = onnxruntime.InferenceSession(to_bytes(graph), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": images})
    with torch.no_grad():
        logits = TorchGraph(graph)(torch.tensor(images)).numpy()
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_one_step_moves_weights_and_statistics() -> None:
    from optc.models.torch_graph import TorchGraph

    network = TorchGraph(digits.digits_dscnn(he(0)))
    before = {name: tensor.clone() for name, tensor in network.arrays().items()}
    loss = network(torch.tensor(digits.images("train")[:16]), training=True).square().mean()
    loss.backward()
    with torch.no_grad():
        for tensor in network.parameters():
            tensor -= 0.1 * tensor.grad
    after = network.arrays()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    for part in ("weight", "bn.gamma", "bn.beta", "bn.mean", "bn.variance"):
        assert f"stem.{part}" in moved
    assert "stem.relu6.max" not in moved


def test_an_operator_without_training_is_refused() -> None:
    from optc.models.torch_graph import TorchGraph

    graph = Graph("net", opsets={"": 18})
    graph.add_output(graph.add("Tan", [graph.add_input("x", TensorType(DType.FLOAT, ("N",)))]).output, "y")
    with pytest.raises(ModelError, match="Tan"):
        TorchGraph(graph)
