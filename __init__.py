"""`optc`: a static, graph-level compression compiler for ONNX models."""

__version__ = "0.1.0"
