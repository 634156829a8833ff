"""Running graphs: ONNX Runtime sessions, calibration samples, statistics, agreement and latency."""
