"""Running an artifact on a device over TVM's RPC.

The device runs a server (`python -m tvm.exec.rpc_server`, or the one in C++); it is given the library, which needs
nothing of TVM itself, and calls the functions of `sources/rpc.cc`. Times are taken on the device, without the network.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from ...errors import SpecError, TargetError
from . import artifact, manifest
from .build import first_line, require_tvm
from .run import fitting

Array = npt.NDArray[Any]
_T = TypeVar("_T")

_PATIENCE = 10.0
"""Seconds to wait for a device to answer at all."""


class Remote:
    """An artifact on a device, ready to run. `rpc` is its `host:port`, or that of a tracker where `key` is given."""

    emulated: ClassVar[bool] = False

    def __init__(self, path: str, rpc: str, *, key: str = "", threads: int = 0) -> None:
        require_tvm()
        host, port = address(rpc)
        self.threads = threads
        self._where = f"{key} of the tracker {rpc}" if key else rpc
        with artifact.opened(path) as folder:
            found = manifest.read(folder)
            self.inputs, self.outputs = manifest.ports(found["inputs"]), manifest.ports(found["outputs"])
            library = os.path.join(os.path.abspath(folder), "model.so")
            if not os.path.isfile(library):
                raise TargetError(
                    f"{path} was built for {found['target']}, and holds no library that a device can load"
                )
            try:
                socket.create_connection((host, port), timeout=_PATIENCE).close()
            except OSError as error:
                raise TargetError(f"nothing answers at {rpc}: {error.strerror or error}") from error
            self._remote = self._told("connecting", lambda: _connect(host, port, key))
            self._told("sending the library", lambda: self._remote.upload(library))
        try:
            self._library = self._told("loading the library", lambda: self._remote.load_module("model.so"))
        except TargetError as error:
            raise TargetError(f"{error}; it was built for {found['target']} ({found['machine']['triple']})") from error

    def close(self) -> None:
        """Give the device back. Nothing can be run after."""
        self._library = self._remote = None

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs for one set of inputs, in order. Raises `TargetError` where they do not fit or it fails."""
        return self.timed(feeds, 1)[0]

    def timed(self, feeds: Mapping[str, Array], runs: int) -> tuple[list[Array], float]:
        """The outputs, and the seconds of the fastest of so many runs on the device."""
        inputs = fitting(feeds, self.inputs)
        return self._told("running the model", lambda: self._run(inputs, runs))

    def _run(self, inputs: list[Array], runs: int) -> tuple[list[Array], float]:
        given = [self._put(array) for array in inputs]
        sizes = [self._put(np.zeros(max(1, len(port.shape)), np.int64)) for port in self.outputs]
        self._call("optc_shapes", *given, *sizes)
        shapes = [tuple(one.numpy()[: len(port.shape)]) for one, port in zip(sizes, self.outputs, strict=True)]
        made = [self._put(np.zeros(shape, port.dtype)) for shape, port in zip(shapes, self.outputs, strict=True)]
        seconds = self._call("optc_run", self.threads, runs, *given, *made)
        return [one.numpy() for one in made], seconds

    def _call(self, name: str, *arguments: object) -> float:
        found = float(self._library[name](*arguments))
        if found < 0:
            text = self._put(np.zeros(512, np.uint8))
            self._library["optc_message"](text)
            said = bytes(text.numpy()).partition(b"\0")[0].decode(errors="replace")
            raise TargetError(f"the compiled model failed on the device: {said}")
        return found

    def _put(self, array: Array) -> Any:
        import tvm

        return tvm.runtime.tensor(array, self._remote.cpu())

    def _told(self, doing: str, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except TargetError:
            raise
        except Exception as error:  # errors of TVM and of the network share no base class
            raise TargetError(f"the device at {self._where} failed while {doing}: {_reason(error)}") from error


def address(text: str) -> tuple[str, int]:
    """The parts of `host:port`. Raises `SpecError`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SpecError(f"--rpc takes HOST:PORT, such as 192.168.1.20:9090, not '{text}'")
    return host.strip("[]"), int(port)


def _connect(host: str, port: int, key: str) -> Any:
    from tvm import rpc

    if not key:
        return rpc.connect(host, port)
    return rpc.connect_tracker(host, port).request(key, priority=1)


def _reason(error: Exception) -> str:
    said = first_line(error)
    lost = ("socket", "connection", "closed", "rpcerror", "errno", "recv", "send", "eof", "kshutdown", "channel")
    return f"the connection was lost ({said})" if any(word in f"{said} {error}".lower() for word in lost) else said
