"""What passes of layers make of a small network, as text: its nodes with the shapes of what they read and give.

A file of `tests/golden/forms` holds the nodes before, a line `---`, and those after. `--update-golden` writes what
comes out now; read the difference. Which weights are fitted is tested where the fits are; here it is where they stand.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from walked import context, residual_net

from optc.ir.graph import Graph
from optc.ir.shapes.infer import infer
from optc.passes.base import Pass
from optc.passes.depthwise import Depthwise
from optc.passes.prune import Prune
from optc.passes.svd import Svd

FOLDER = Path(__file__).parents[3] / "tests" / "golden" / "forms"
CASES: dict[str, Pass] = {
    "depthwise--pw-dw": Depthwise(rank=2, form="pw-dw"),
    "depthwise--dw-pw": Depthwise(rank=2, form="dw-pw"),
    "prune--channels": Prune(kind="channels", ratio=0.5, align=2, scope="layer"),
    "svd--channel": Svd(ratio=0.5, form="channel", align=1, scope="layer"),
    "svd--spatial": Svd(ratio=0.5, form="spatial", align=1, scope="layer"),
    "svd--tucker": Svd(ratio=0.5, form="tucker", align=1, scope="layer"),
}


def outline(graph: Graph) -> str:
    """One node a line: its name, what it is, its attributes, the shapes of its constants and of its result."""
    lines = []
    for node in graph:
        attributes = " ".join(f"{name}={one.value}" for name, one in sorted(node.attributes.items()))
        constants = [list(v.constant.shape) for v in node.inputs if v is not None and v.constant is not None]
        words = [node.name or "-", node.op, *([attributes] if attributes else []), *map(str, constants)]
        lines.append(f"{' '.join(words)} -> {list(node.output.shape or ())}\n")
    return "".join(lines)


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, request: pytest.FixtureRequest) -> None:
    graph = residual_net()
    ctx = context(graph)
    before = outline(graph)
    CASES[name].run(graph, ctx)
    graph.sweep()
    graph.sort()
    infer(graph, fresh=True)
    text = f"{before}---\n{outline(graph)}"
    path = FOLDER / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_text_is_of_a_case() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == CASES.keys()
