"""Which targets there are: one explicit lazy table, and what other packages add."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import entry_points

from ..errors import SpecError, TargetError, nearest
from ..passes.spec import items, options_from, text_of
from .base import MeasuredTarget, Target

GROUP = "optc.targets"
"""Entry-point group: the name is the word after `--target`, the object a `Target` subclass."""

TABLE = {
    "onnx": "optc.targets.onnx:OnnxTarget",
    "host": "optc.targets.tvm.host:HostTarget",
    "arm64": "optc.targets.tvm.arm:Arm64Target",
    "armv7": "optc.targets.tvm.arm:Armv7Target",
    "opencl": "optc.targets.tvm.gpu.opencl:OpenClTarget",
    "metal": "optc.targets.tvm.gpu.shaders:MetalTarget",
    "webgpu": "optc.targets.tvm.gpu.shaders:WebGpuTarget",
}


def names() -> tuple[str, ...]:
    """Every target by its word."""
    return (*TABLE, *sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in TABLE))


def find(name: str, *, text: str = "", position: int | None = None) -> type[Target]:
    """The target class for a word. Raises `SpecError`, pointing into `text`, where there is none."""
    if name in TABLE:
        module, _, attribute = TABLE[name].partition(":")
        cls = getattr(importlib.import_module(module), attribute)
    else:
        entry = next((entry for entry in entry_points(group=GROUP) if entry.name == name), None)
        if entry is None:
            raise SpecError(f"no target is called '{name}'.{nearest(name, names())}", text=text, position=position)
        cls = entry.load()
    if not (isinstance(cls, type) and issubclass(cls, Target)):
        raise SpecError(f"'{name}' comes from {cls!r}, which is not a subclass of optc's Target")
    return cls


def parse(text: str) -> tuple[Target, ...]:
    """The targets that `text` spells, `onnx:cpu=arm`; several are parted by commas. Raises `SpecError`."""
    targets: list[Target] = []
    for item in items(text):
        cls = find(item[0].text, text=text, position=item[0].position)
        targets.append(cls(**options_from(text, cls, item)))
    return tuple(targets)


def distinct(targets: Sequence[str | Target]) -> tuple[Target, ...]:
    """Targets given as text or objects, each once. Raises `SpecError` for none, or for one that is given twice."""
    listed = [one for item in targets for one in (parse(item) if isinstance(item, str) else (item,))]
    if not listed:
        raise SpecError("no target is named: --target onnx")
    for i, one in enumerate(listed):
        if one in listed[:i]:
            raise SpecError(f"the target '{spec(one)}' is named twice")
    return tuple(listed)


def one(text: str) -> Target:
    """The target that `text` spells. Raises `SpecError` where it spells several."""
    targets = distinct([text])
    if len(targets) > 1:
        raise SpecError(f"one target is taken here, not {len(targets)}", text=text, position=0)
    return targets[0]


def on_devices() -> str:
    """The targets whose kernels can be tuned and whose artifacts run on devices, as a sentence lists them."""
    *others, last = (name for name in names() if issubclass(find(name), MeasuredTarget))
    return f"{', '.join(others)} and {last}"


def measured(target: Target, lacks: str, flag: str) -> MeasuredTarget:
    """`target`, which `flag` wants measured. Raises `TargetError`, saying what it `lacks`, where it cannot be."""
    if isinstance(target, MeasuredTarget):
        return target
    raise TargetError(f"{target.name} {lacks}; {flag} is for {on_devices()}")


def file_names(stem: str, targets: Sequence[Target]) -> tuple[str, ...]:
    """A name for the artifact of each target: `STEM.optc.onnx`, `STEM.optc.arm64`.

    Targets of one kind are told apart by all of their text: `STEM.arm64-dotprod-true`.
    """
    kinds = Counter(target.suffix for target in targets)
    names = []
    for target in targets:
        if kinds[target.suffix] == 1:
            names.append(f"{stem}.optc{target.suffix}")
        else:
            names.append(f"{stem}.{word(target)}{'' if target.folder else target.suffix}")
    return tuple(names)


def word(target: Target) -> str:
    """The text of a target as a part of a file's name: `onnx-cpu-arm`."""
    return re.sub(r"[^\w.]+", "-", spec(target)).strip("-")


def spec(target: Target) -> str:
    """The text of a target: its word and the options that differ from their defaults."""
    return text_of(target.name, target)
