"""A connection to a device over TVM's RPC.

The device runs a server (`python -m tvm.exec.rpc_server`, or the one in C++). Errors of TVM and of the network become
one line that says what was being done.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeVar

from ...errors import SpecError, TargetError
from ..tuning import Device
from .build import first_line, require_tvm

_T = TypeVar("_T")

_PATIENCE = 10.0
"""Seconds to wait for a device to answer at all."""
_LOST = ("socket", "connection", "closed", "rpcerror", "errno", "recv", "send", "eof", "kshutdown", "channel")


class Connection:
    """A session on a device. Raises `TargetError` where there is none to be had."""

    def __init__(self, device: Device) -> None:
        require_tvm()
        self.device = device
        self._files = 0
        host, port = address(device.address)
        try:
            socket.create_connection((host, port), timeout=_PATIENCE).close()
        except OSError as error:
            raise TargetError(f"nothing answers at {device.address}: {error.strerror or error}") from error
        self.session: Any = self.told("connecting", lambda: _connect(host, port, device.key))

    def name(self) -> str:
        """The name of a new file on the device."""
        self._files += 1
        return f"optc{self._files}.so"

    def close(self) -> None:
        """Give the device back. Nothing can be done on it after."""
        self.session = None

    def told(self, doing: str, work: Callable[[], _T]) -> _T:
        """What `work` gives. Raises `TargetError` that says what was being done where it fails."""
        try:
            return work()
        except TargetError:
            raise
        except Exception as error:  # errors of TVM and of the network share no base class
            raise TargetError(f"the device at {self.device.name} failed while {doing}: {_reason(error)}") from error


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
    return f"the connection was lost ({said})" if any(word in f"{said} {error}".lower() for word in _LOST) else said
