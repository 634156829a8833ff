"""What each peer does to a model, as its documentation says to do it: run by `peers.py` in the peer's own environment.

    python benchmarks/peer_programs.py WHO MODEL SAMPLES OUT

SAMPLES is an .npz of arrays by input name, samples first. Nothing of `optc` is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Feeds = dict[str, np.ndarray]


def batches(samples: Path) -> list[Feeds]:
    """The samples one at a time."""
    with np.load(samples) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    count = len(next(iter(columns.values())))
    return [{name: array[at : at + 1] for name, array in columns.items()} for at in range(count)]


def runtime(method: str, model: Path, samples: Path, out: Path) -> None:
    """ONNX Runtime: preprocessing, then QDQ with unsigned activations and a scale a channel."""
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[Feeds] = iter(batches(samples))

        def get_next(self) -> Feeds | None:
            return next(self._batches, None)

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    q.quantize_static(
        str(prepared), str(out), Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True,
        activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
        calibrate_method=q.CalibrationMethod[method],
    )  # fmt: skip
    prepared.unlink()


def nncf(model: Path, samples: Path, out: Path) -> None:
    import nncf as package
    import onnx

    feeds = batches(samples)
    quantized = package.quantize(onnx.load(model), package.Dataset(feeds), subset_size=len(feeds))
    onnx.save(quantized, out)


def onnxsim_static(model: Path, samples: Path, out: Path) -> None:
    import onnx
    import onnxsim

    simplified, _ = onnxsim.simplify(str(model))
    onnx.save(onnxsim.quantize_static(simplified, calibration_data=batches(samples)), out)


def onnxsim_channels(model: Path, samples: Path, out: Path) -> None:
    import onnx
    import onnxsim

    simplified, _ = onnxsim.simplify(str(model))
    pruned = onnxsim.apply_structured_wanda_pruning(simplified, batches(samples), sparsity=0.3, global_sparsity=True)
    onnx.save(pruned, out)


def onnxsim_simplify(model: Path, samples: Path, out: Path) -> None:
    import onnx
    import onnxsim

    onnx.save(onnxsim.simplify(str(model))[0], out)


def onnxslim_simplify(model: Path, samples: Path, out: Path) -> None:
    import onnxslim

    onnxslim.slim(str(model), str(out))


PROGRAMS: dict[str, Callable[[Path, Path, Path], None]] = {
    "onnxruntime MinMax": lambda *paths: runtime("MinMax", *paths),
    "onnxruntime Percentile": lambda *paths: runtime("Percentile", *paths),
    "nncf quantize": nncf,
    "onnxsim quantize_static": onnxsim_static,
    "onnxsim prune channels 0.3": onnxsim_channels,
    "onnxsim simplify": onnxsim_simplify,
    "onnxslim": onnxslim_simplify,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*map(Path, sys.argv[2:]))
