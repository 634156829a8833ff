"""Shape rules: for each operator, the types of its outputs and the elements of small ones, with symbolic sizes.

A rule takes a `Call` and returns one `Fact` an output. It raises `Cannot` where it has nothing to say, which leaves the
node to ONNX's own inference, and `ModelError` where no run of the node can succeed.
"""

from __future__ import annotations

from . import (
    contrib,
    creation,
    elementwise,
    products,
    quantized,
    reductions,
    resizing,
    selection,
    structure,
    tabular,
    windows,
)
from .call import Call, Cannot, Fact, Rule

__all__ = ["RULES", "Call", "Cannot", "Fact", "Rule"]

RULES: dict[tuple[str, str], Rule] = {
    ("", op): rule
    for module in (creation, elementwise, products, quantized, reductions, resizing, selection, structure, windows)
    for op, rule in module.RULES.items()
}
RULES |= {("com.microsoft", op): rule for op, rule in contrib.RULES.items()}
RULES |= {("com.microsoft.nchwc", op): rule for op, rule in contrib.BLOCKED.items()}
RULES |= {("ai.onnx.ml", op): rule for op, rule in tabular.RULES.items()}
"""(domain, op) -> rule."""
