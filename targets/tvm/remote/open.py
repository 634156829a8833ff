"""An artifact on a device, by whichever way leads to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....errors import TargetError
from ... import table
from ...tuning import Device

if TYPE_CHECKING:
    from .pushed import Pushed
    from .run import Remote


def on_device(path: str, target: str, device: Device, *, threads: int = 0) -> Remote | Pushed:
    """The artifact at `path`, built for `target`, on the device. Raises `TargetError`."""
    if device.by == "rpc":
        from .connection import Connection
        from .run import Remote

        return Remote(path, Connection(device), threads=threads)
    from ..cpu.arm import Arm64Target, Armv7Target
    from ..cpu.host import HostTarget
    from .pushed import Pushed

    one = table.parse(target)[0]
    if not isinstance(one, HostTarget | Arm64Target | Armv7Target):
        raise TargetError(
            f"{path} was built for {target}; a device by {device.by} runs libraries for host, arm64 and armv7"
        )
    return Pushed(path, device, one.machine(), threads=threads)
