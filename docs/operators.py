"""Writes the table of `docs/targets/operators.md`: python docs/operators.py"""

from __future__ import annotations

from pathlib import Path

from optc.targets.tvm.support import table

PAGE = Path(__file__).parent / "targets" / "operators.md"
TITLE = """# Operators

What the targets of TVM take of ONNX's operators: CPUs are `host`, `arm64`, `armv7`, GPUs `opencl`, `metal`, `webgpu`.
`optc targets --operators` lists the same. A build refuses what is not taken, or not in the form at hand, before any
work, by the name of the node and in the words of this table: they are those of the rules that refuse.

An operator is taken by a `kernel` of optc's own, by its `definition` in other operators, `written out` round by round,
or through TVM's `converter`; each is held against ONNX's node tests (`python benchmarks/conformance.py`). Layers on
codes are computed with the `floats` that they stand for where no kernel adds up codes. Types with fewer than eight bits
are neither inputs nor outputs. GPUs need fixed sizes, and refuse kernels that compute with a type that their language
lacks: halves in OpenCL, which has them as memory alone, and doubles on GPUs without them; doubles and whole numbers of
other sizes than 32 bits in WebGPU.

Tensors of a library have sizes that are known when it is built, or that follow from those of its inputs. So TopK is
taken; NonZero and Compress are where the model declares how much they give: a run that gives another number fails by
the name of the node. NonMaxSuppression and Unique are not: how much they give differs from input to input, and a
library that answers some pictures and fails on others is of no use. End the model before them, so that boxes and scores
are its outputs, and let the program that calls the library select. This page is written by `docs/operators.py`.

"""


def page() -> str:
    lines = ["| operator | CPUs | GPUs | what is taken, where not all, or why not |", "|---|---|---|---|"]
    for one in table():
        lines.append(f"| `{one.operator}` | {one.way or 'refused'} | {one.gpu or 'refused'} | {one.note} |")
    return TITLE + "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
