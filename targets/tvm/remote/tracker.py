"""Asking TVM's RPC tracker for a device: a greeting of four bytes each way, then JSON behind its length."""

from __future__ import annotations

import json
import socket
import struct

from ....errors import TargetError

_MAGIC = 0x2F271
_REQUEST, _SUCCESS = 4, 0
_LONGEST = 1 << 16
"""Bytes of an answer: an address and a name."""


def request(host: str, port: int, key: str, *, connecting: float, waiting: float) -> tuple[str, int, str]:
    """Host, port and name of a device of the kind `key`, waited for until one is free.

    Raises `TargetError` where no tracker answers within `connecting` seconds, or no device is free within `waiting`.
    """
    where = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=connecting) as tracker:
            tracker.sendall(struct.pack("<i", _MAGIC))
            if struct.unpack("<i", _received(tracker, 4))[0] != _MAGIC:
                raise TargetError(f"what answers at {where} is no RPC tracker; a device is named by --rpc")
            question = json.dumps([_REQUEST, key, "", 1]).encode()
            tracker.sendall(struct.pack("<i", len(question)) + question)
            tracker.settimeout(waiting)
            try:
                code, answer = json.loads(_received(tracker, struct.unpack("<i", _received(tracker, 4))[0]))
            except TimeoutError:
                raise TargetError(f"the tracker at {where} had no device '{key}' free in {waiting:.0f} s") from None
            if code != _SUCCESS:
                raise TargetError(f"the tracker at {where} gives no device '{key}'")
            return str(answer[0]), int(answer[1]), str(answer[2])
    except OSError as error:
        raise TargetError(f"no tracker answers at {where}: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError, RecursionError, struct.error) as error:
        raise TargetError(f"what answers at {where} is no RPC tracker; a device is named by --rpc") from error


def _received(tracker: socket.socket, size: int) -> bytes:
    if not 0 <= size <= _LONGEST:
        raise ValueError("an answer of that length is none")
    received = b""
    while len(received) < size:
        piece = tracker.recv(size - len(received))
        if not piece:
            raise ConnectionResetError("the connection was closed")
        received += piece
    return received
