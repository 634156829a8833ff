"""What is asked of tuning, and of the device that does the work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..errors import SpecError

_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Device:
    """A device over RPC at `address`, `host:port`; where `key` is given that is a tracker's, which has such devices.

    With `by` it is one that a shell reaches instead: `adb` by its serial number (`any` for the only one), `ssh` by its
    host.
    """

    address: str
    key: str = ""
    by: Literal["rpc", "adb", "ssh"] = "rpc"

    @property
    def name(self) -> str:
        if self.by != "rpc":
            return f"{self.address} by {self.by}"
        return f"{self.key} of the tracker {self.address}" if self.key else self.address

    @property
    def kind(self) -> str:
        """What stays the same when the device is asked for again."""
        return self.address if self.by != "rpc" else self.key or self.address.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class Tuning:
    """Measure kernels for so many `seconds` at most, none where what is known is to do. `records` is the file of what
    was measured, in memory where there is none; `threads` 0 takes one for each core."""

    seconds: float
    records: str | None
    device: Device | None = None
    threads: int = 0


def duration(text: str, flag: str = "--tune") -> float:
    """Seconds of a text such as 90s, 10m, 1.5h. Raises `SpecError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or not float(match[1]):
        raise SpecError(f"{flag} takes a time such as 90s, 10m or 1h, not '{text}'")
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True, slots=True)
class Tuned:
    """`choice` is what was decided, a text of the target's own, and `summary` tells of it. `interrupted` tells that the
    user did not wait for the end."""

    choice: str
    summary: str
    interrupted: bool
