"""A device that a shell reaches: over the Android debug bridge (`adb`), or over `ssh`.

Nothing has to be installed on it. Files are put into a folder of their own, which goes again at the end.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from ....errors import SpecError, TargetError
from ...tuning import Device

_PATIENCE = 600.0
"""Seconds that a command on a device may take."""
_STATUS = "optc-status="
_PLACES = {"adb": "/data/local/tmp", "ssh": "/tmp"}
_FACTS = (
    "echo machine=$(uname -m); echo system=$(uname -s -r); "
    "echo model=$(getprop ro.product.model 2>/dev/null || cat /proc/device-tree/model 2>/dev/null); "
    "grep -m1 -i -E '^(features|flags)' /proc/cpuinfo | sed 's/^[^:]*: */features=/'; "
    "grep -m1 -E '^(model name|Hardware|CPU part)' /proc/cpuinfo | sed 's/^[^:]*: */cpu=/'; true"
)
_HEAT = "cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null; true"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a device says of itself: its model, system, machine and the features of its CPU."""

    model: str = ""
    cpu: str = ""
    machine: str = ""
    system: str = ""
    features: tuple[str, ...] = ()


@dataclass(slots=True)
class Shell:
    """A shell on a device, and the `folder` there that is its own."""

    device: Device
    folder: str = field(default="")
    _command: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Raises `TargetError` where the program or the device is missing."""
        one = self.device
        if not re.fullmatch(r"[\w.:@%-]+", one.address) or one.address.startswith("-"):
            raise SpecError(f"--{one.by} takes a {'serial number' if one.by == 'adb' else 'host'}, not '{one.address}'")
        program = shutil.which(one.by)
        if program is None:
            package = "adb" if one.by == "adb" else "openssh-client"
            raise TargetError(f"{one.name}: the program {one.by} is not here; install the package {package}")
        serial = () if one.address == "any" else ("-s", one.address)
        self._command = (program, *serial) if one.by == "adb" else (program, "-o", "BatchMode=yes", one.address)
        folder = f"{_PLACES[one.by]}/optc-{uuid.uuid4().hex}"
        self.run(f"mkdir -m 700 {folder}")
        self.folder = folder

    def run(self, command: str) -> str:
        """What a command of the shell prints. Raises `TargetError` where it, or the way to the device, fails."""
        # Bridges before Android 7 lose the status of a command.
        script = f"{command}; echo {_STATUS}$?"
        words = ("shell", script) if self.device.by == "adb" else (script,)
        printed = self._done([*self._command, *words]).decode(errors="replace").replace("\r\n", "\n")
        text, _, status = printed.rpartition(_STATUS)
        if status.strip() != "0":
            lines = text.strip().splitlines() or [f"a command ended with status {status.strip() or 'unknown'}"]
            raise TargetError(f"{self.device.name}: {lines[-1]}")
        return text

    def push(self, paths: Sequence[str]) -> None:
        """Put files into the folder on the device, under their own names. Raises `TargetError`."""
        for path in paths:
            there = f"{self.folder}/{os.path.basename(path)}"
            if self.device.by == "adb":
                self._done([*self._command, "push", path, there])
            else:
                with open(path, "rb") as file:
                    self._done([*self._command, f"cat > {shlex.quote(there)}"], file.read())

    def pull(self, name: str, path: str) -> None:
        """Fetch a file of the folder on the device. Raises `TargetError`."""
        there = f"{self.folder}/{name}"
        if self.device.by == "adb":
            self._done([*self._command, "pull", there, path])
        else:
            with open(path, "wb") as file:
                file.write(self._done([*self._command, f"cat {shlex.quote(there)}"]))

    def close(self) -> None:
        """Remove the folder on the device."""
        if self.folder:
            self.run(f"rm -rf {self.folder}")
            self.folder = ""

    def facts(self) -> Facts:
        lines = (line.partition("=") for line in self.run(_FACTS).splitlines())
        values = {key: value.strip() for key, _, value in lines}
        return Facts(
            values.get("model", ""),
            values.get("cpu", ""),
            values.get("machine", ""),
            values.get("system", ""),
            tuple(values.get("features", "").split()),
        )

    def heat(self) -> float | None:
        """The temperature of the hottest sensor in degrees Celsius; `None` where the device tells none."""
        values = [int(line) for line in self.run(_HEAT).split() if line.lstrip("-").isdecimal()]
        # Sensors tell thousandths of a degree, or a few of them degrees.
        degrees = [value / 1000 if abs(value) > 1000 else float(value) for value in values]
        return max((one for one in degrees if -20 < one < 150), default=None)

    def _done(self, command: Sequence[str], fed: bytes | None = None) -> bytes:
        try:
            done = subprocess.run(command, input=fed, capture_output=True, timeout=_PATIENCE, check=False)
        except subprocess.TimeoutExpired as error:
            raise TargetError(f"{self.device.name}: no answer within {_PATIENCE:.0f} seconds") from error
        if done.returncode:
            lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise TargetError(f"{self.device.name}: {(lines or [f'ended with status {done.returncode}'])[-1]}")
        return done.stdout
