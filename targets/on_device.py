"""An artifact on a device, by whichever way leads to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import TargetError
from . import table
from .tuning import Device

if TYPE_CHECKING:
    from .tvm.remote.pushed import Pushed
    from .tvm.remote.run import Remote


def on_device(path: str, target: str, device: Device, *, threads: int = 0) -> Remote | Pushed:
    """The artifact at `path`, built for `target`, on the device. Raises `TargetError`."""
    if device.by == "rpc":
        from .tvm.remote.connection import Connection
        from .tvm.remote.run import Remote

        return Remote(path, Connection(device), threads=threads)
    from .tvm.remote.pushed import Pushed
    from .tvm.target import CpuTarget

    one = table.parse(target)[0]
    if not isinstance(one, CpuTarget):
        raise TargetError(
            f"{path} was built for {target}; a device by {device.by} runs libraries for {table.on_devices()}"
        )
    return Pushed(path, device, one.machine(), threads=threads)
