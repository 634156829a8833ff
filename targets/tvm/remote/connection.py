"""A connection to a device over TVM's RPC.

The device runs a server (`python -m tvm.exec.rpc_server`, or the one in C++); the key that it may ask for is
that in the environment, OPTC_RPC_KEY. Errors of TVM and of the network become
one line that says what was being done; a device that falls silent is let go.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from ....errors import SpecError, TargetError
from ...tuning import Device
from ..artifact.build import first_line
from ..loading import require
from . import tracker
from .relay import Relay

_T = TypeVar("_T")

_PATIENCE = 10.0
"""Seconds to wait for a device to answer at all."""
_SILENCE = 120.0
"""Seconds that a device may take for one answer, such as a run of a model."""
_WAITING = 60.0
"""Seconds to wait for a tracker to have a device free."""
_LOST = (
    "socket",
    "connection",
    "closed",
    "rpcerror",
    "errno",
    "recv",
    "send",
    "eof",
    "kshutdown",
    "kreturn",
    "channel",
)


class Connection:
    """A session on a device. Raises `TargetError` where there is none to be had."""

    def __init__(self, device: Device, *, silence: float = _SILENCE, waiting: float = _WAITING) -> None:
        require()
        self.device = device
        self._files = 0
        host, port = address(device.address)
        name = os.environ.get("OPTC_RPC_KEY", "")
        if device.key:
            host, port, name = tracker.request(host, port, device.key, connecting=_PATIENCE, waiting=waiting)
        try:
            there = socket.create_connection((host, port), timeout=_PATIENCE)
        except (OSError, UnicodeError) as error:  # a name may be none that can be looked up
            raise TargetError(f"nothing answers at {host}:{port}: {getattr(error, 'strerror', '') or error}") from error
        there.settimeout(None)
        self._silence = silence
        self._relay = Relay(there, min(silence, _PATIENCE), silence)
        try:
            self.session: Any = self.attempt("connecting", lambda: _connect(self._relay.port, name))
        except TargetError:
            self._relay.close()
            raise

    def name(self) -> str:
        """The name of a new file on the device."""
        self._files += 1
        return f"optc{self._files}.so"

    def close(self) -> None:
        """Give the device back. Nothing can be done on it after."""
        self.session = None
        self._relay.close()

    def attempt(self, doing: str, work: Callable[[], _T]) -> _T:
        """What `work` gives. Raises `TargetError` that says what was being done where it fails."""
        try:
            return work()
        except TargetError:
            raise
        except Exception as error:  # errors of TVM and of the network share no base class
            why = f"it did not answer within {self._silence:g} s" if self._relay.silent else _reason(error)
            raise TargetError(f"the device at {self.device.name} failed while {doing}: {why}") from error


def address(text: str) -> tuple[str, int]:
    """The parts of `host:port`. Raises `SpecError`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SpecError(f"--rpc takes HOST:PORT, such as 192.168.1.20:9090, not '{text}'")
    return host.strip("[]"), int(port)


def _connect(port: int, key: str) -> Any:
    from tvm import rpc

    return rpc.connect("127.0.0.1", port, key)


def _reason(error: Exception) -> str:
    said = first_line(error)
    return f"the connection was lost ({said})" if any(word in f"{said} {error}".lower() for word in _LOST) else said
