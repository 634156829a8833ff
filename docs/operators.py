"""Writes the table of `docs/targets/operators.md`: python docs/operators.py"""

from __future__ import annotations

from pathlib import Path

from optc.targets.tvm.support import markdown, table

PAGE = Path(__file__).parent / "targets" / "operators.md"
TITLE = """# Operators

What the targets of TVM (`host`, `arm64`, `armv7`, `opencl`, `metal`, `webgpu`) take of ONNX's operators. `optc targets
--operators` lists the same, and a build refuses what is not taken before any work, by the name of the node. GPUs refuse
besides the types that their languages lack.

An operator is taken by a `kernel` of optc's own, by its `definition` in other operators, `written out` round by round,
or through TVM's `converter`; each is held against ONNX's node tests (`python benchmarks/conformance.py`). Types with
fewer than eight bits are neither inputs nor outputs. This page is written by `docs/operators.py`.

"""


def main() -> None:
    PAGE.write_text(TITLE + markdown(table()), encoding="utf-8")


if __name__ == "__main__":
    main()
