"""Training a graph on ONNX Runtime: flat buffers, a step that accumulates micro-batches, optimizers, checkpoints."""
