"""Execution providers of ONNX Runtime by short names: `cuda` is CUDAExecutionProvider."""

from __future__ import annotations

from ..errors import SpecError
from .session import CPU

_ENDING = "ExecutionProvider"


def provider_of(name: str) -> tuple[str, ...]:
    """What a session is given for `name`, in any case, with or without its ending; the CPU takes what it does not.

    Raises `SpecError` where none of that name is installed.
    """
    short = name.lower().removesuffix(_ENDING.lower())
    if short == "cpu":
        return CPU
    import onnxruntime

    installed = {one.removesuffix(_ENDING).lower(): one for one in onnxruntime.get_available_providers()}
    if short not in installed:
        raise SpecError(f"ONNX Runtime has no execution provider '{name}' here; installed are: {', '.join(installed)}")
    return (installed[short], *CPU)
