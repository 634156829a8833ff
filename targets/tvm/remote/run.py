"""Running an artifact on a device over TVM's RPC.

The device's server (see `connection`) is given the library, which needs nothing of TVM itself, and calls the functions
of `sources/rpc.cc`. Times are taken on the device, without the network.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ....errors import TargetError
from ..artifact import folder as artifact
from ..artifact import manifest
from ..artifact.manifest import Port
from ..artifact.run import fitting
from .connection import Connection

Array = npt.NDArray[Any]

_CALL = 5.0
"""Seconds of runs that a device is asked for at once."""
_LARGEST = 1 << 30
"""Bytes of an output that a device may speak of."""


class Remote:
    """An artifact on a device, ready to run."""

    emulated: ClassVar[bool] = False

    def __init__(self, path: str, connection: Connection, *, threads: int = 0) -> None:
        self.threads = threads
        self._connection = connection
        name = connection.name()
        with artifact.opened(path) as folder:
            document = manifest.read(folder, path)
            self.inputs, self.outputs = manifest.ports(document["inputs"]), manifest.ports(document["outputs"])
            library = os.path.join(folder, "model.so")
            if not os.path.isfile(library):
                raise TargetError(
                    f"{path} was built for {document['target']}, and holds no library that a device can load"
                )
            connection.attempt("sending the library", lambda: connection.session.upload(library, name))
        try:
            self._library = connection.attempt("loading the library", lambda: connection.session.load_module(name))
        except TargetError as error:
            raise TargetError(
                f"{error}; it was built for {document['target']} ({document['machine']['triple']})"
            ) from error

    def close(self) -> None:
        """Give the device back. Nothing can be run on it after."""
        self._library = None
        self._connection.close()

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs for one set of inputs, in order. Raises `TargetError` where they do not fit or it fails."""
        return self.timed(feeds, 1)[0]

    def timed(self, feeds: Mapping[str, Array], runs: int) -> tuple[list[Array], float]:
        """The outputs, and the seconds of the fastest of so many runs on the device."""
        inputs = fitting(feeds, self.inputs)
        outputs, fastest = self._told(inputs, 1)
        # A slow model is not run so often that the device seems to have fallen silent.
        while (runs := runs - 1) > 0:
            many = max(1, min(runs, int(_CALL / max(fastest, 1e-9))))
            outputs, seconds = self._told(inputs, many)
            fastest, runs = min(fastest, seconds), runs - many + 1
        return outputs, fastest

    def _told(self, inputs: list[Array], runs: int) -> tuple[list[Array], float]:
        return self._connection.attempt("running the model", lambda: self._run(inputs, runs))

    def _run(self, inputs: list[Array], runs: int) -> tuple[list[Array], float]:
        fed = [self._put(array) for array in inputs]
        sizes = [self._put(np.zeros(max(1, len(port.shape)), np.int64)) for port in self.outputs]
        self._call("optc_shapes", *fed, *sizes)
        shapes = [tuple(one.numpy()[: len(port.shape)]) for one, port in zip(sizes, self.outputs, strict=True)]
        for shape, port in zip(shapes, self.outputs, strict=True):
            _check_shape(shape, port)
        results = [self._put(np.zeros(shape, port.dtype)) for shape, port in zip(shapes, self.outputs, strict=True)]
        seconds = self._call("optc_run", self.threads, runs, *fed, *results)
        return [one.numpy() for one in results], seconds

    def _call(self, name: str, *arguments: object) -> float:
        seconds = float(self._library[name](*arguments))
        if seconds < 0:
            text = self._put(np.zeros(512, np.uint8))
            self._library["optc_message"](text)
            said = bytes(text.numpy()).partition(b"\0")[0].decode(errors="replace")
            raise TargetError(f"the compiled model failed on the device: {said}")
        return seconds

    def _put(self, array: Array) -> Any:
        import tvm

        return tvm.runtime.tensor(array, self._connection.session.cpu())


def _check_shape(shape: tuple[int, ...], port: Port) -> None:
    """Raises `TargetError` where what a device says of an output is no shape of it, or would fill the memory here."""
    fixed = [one for one, size in zip(shape, port.shape, strict=True) if isinstance(size, int) and one != size]
    if fixed or min(shape, default=0) < 0 or math.prod(map(int, shape)) * np.dtype(port.dtype).itemsize > _LARGEST:
        raise TargetError(f"the device says that output '{port.name}' is of shape {list(map(int, shape))}")
