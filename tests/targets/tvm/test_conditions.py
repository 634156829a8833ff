"""The conditions that operators are taken on: for each, a node that meets it is imported, and one that does not is
refused in the words of the table, before any work and where it is lowered."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import onnx
import pytest

from optc.errors import TargetError
from optc.ir.graph import Graph
from optc.ir.onnx.reader import from_proto
from optc.ir.shapes.infer import infer
from optc.passes.base import Context
from optc.passes.clean.clean import Clean
from optc.targets import table
from optc.targets.tvm.host import HostTarget
from optc.targets.tvm.relax.conditions import CONDITIONS
from optc.targets.tvm.support import support

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

RULES = Path(__file__).parents[3] / "targets" / "tvm" / "relax" / "rules"
OPSETS = {"BitCast": 26}


def _declared(operands: str, call: str, sizes: str = "2, 3", kind: str = "float") -> tuple[str, str]:
    """A graph whose result has sizes that the model declares, and one whose result has not."""
    fixed, unknown = (f"({operands}) => ({kind}[{one}] y) {{ y = {call} }}" for one in (sizes, "N, M"[: len(sizes)]))
    return fixed, unknown


def _cell(op: str) -> tuple[str, str]:
    rows = 2 * {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    weights = f"float[1, {rows}, 2] w, float[1, {rows}, 2] r"
    fixed, long = (
        f"(float[{steps}, 1, 2] x, {weights}) => (float[{steps}, 1, 1, 2] y) {{ y = {op} <hidden_size = 2> (x, w, r) }}"
        for steps in (2, 513)
    )
    return fixed, long


def _reduced(op: str) -> tuple[str, str]:
    few = f"(float[2, 3] x, int64[1] a) => (float[2, 1] y) {{ y = {op} (x, a) }}"
    many = f"(float[2, 2, 2, 2, 2, 2] x, int64[3] a) => (float[2, 2, 2] y) {{ y = {op} <keepdims = 0> (x, a) }}"
    return few, many


_IF = "(bool c, float[2] x) => (float[{n}] y) {{ y = If (c) <then_branch = t () => (float[2] a) {{ a = Neg (x) }}, "
_ELSE = "else_branch = e () => (float[{n}] b) {{ b = {call} }}> }}"
_BODY = "<body = l (int64 i, bool c, float[2] s) => (bool d, float[2] t) { d = Identity (c) t = Neg (s) }> }"
_SCAN = "(float[{n}, 2] x) => (float[{n}, 2] y) {{ y = Scan (x) <num_scan_inputs = 1, body = s (float[2] r) => "
_CONV = "<float t = {2}, uint8 o = {0}, uint8[1, 1, 1, 1] w = {3}> { y = QLinearConv (x, s, o, w, t, o, t, o) }"
_PRODUCT = "<float t = {2}, uint8 o = {0}, uint8[3, 1] w = {3, 2, 1}> { y = QLinearMatMul (x, t, o, w, s, o, t, o) }"
_RESIZE = (
    "(float[1, 1, 4, 4] x) => (float[1, 1, 8, 8] y) <int64[2] s = {{8, 8}}> "
    '{{ y = Resize <axes = [{axes}], keep_aspect_ratio_policy = "not_larger"> (x, , , s) }}'
)

CASES: dict[str, tuple[str, str]] = {
    **{op: _reduced(op) for op in CONDITIONS if op.startswith("Reduce")},
    **{op: _cell(op) for op in ("GRU", "LSTM", "RNN")},
    **{
        op: (
            f"() => (float[5] y) {{ s = Constant <value_int = 5> () y = {op} (s) }}",
            f"(int64 s) => (float[N] y) {{ y = {op} (s) }}",
        )
        for op in ("BlackmanWindow", "HammingWindow", "HannWindow")
    },
    "AffineGrid": (
        "(float[1, 2, 3] x) => (float[1, 4, 5, 2] y) <int64[4] s = {1, 1, 4, 5}> { y = AffineGrid (x, s) }",
        "(float[1, 2, 3] x, int64[4] s) => (float[1, 4, 5, 2] y) { y = AffineGrid (x, s) }",
    ),
    "BitCast": (
        "(float[2] x) => (int32[2] y) { y = BitCast <to = 6> (x) }",
        "(bool[2] x) => (uint8[2] y) { y = BitCast <to = 2> (x) }",
    ),
    "Cast": (
        "(float[2] x) => (float8e4m3fn[2] y) { y = Cast <to = 17> (x) }",
        "(float8e4m3fn[2] x) => (float8e5m2[2] y) { y = Cast <to = 19> (x) }",
    ),
    "CenterCropPad": _declared("float[4, 4] x, int64[2] s", "CenterCropPad (x, s)"),
    "Compress": _declared("float[4] x, bool[4] c", "Compress (x, c)", "2"),
    "CumSum": (
        "(float[1, 5] x) => (float[1, 5] y) { a = Constant <value_int = 1> () y = CumSum (x, a) }",
        "(float[1, 40000] x) => (float[1, 40000] y) { a = Constant <value_int = 1> () y = CumSum (x, a) }",
    ),
    "Dropout": (
        "(float[2] x) => (float[2] y) { y = Dropout (x) }",
        "(float[2] x, float r, bool t) => (float[2] y) { y = Dropout (x, r, t) }",
    ),
    "Expand": _declared("float[3] x, int64[2] s", "Expand (x, s)"),
    "If": (
        (_IF + _ELSE).format(n="2", call="Abs (x)"),
        (_IF + _ELSE).format(n="N", call="Concat <axis = 0> (x, x)"),
    ),
    "Loop": (
        "(float[2] x) => (float[2] y) { n = Constant <value_int = 2> () c = Constant <value = bool {1}> () "
        f"y = Loop (n, c, x) {_BODY}",
        f"(float[2] x, int64 n) => (float[2] y) {{ c = Constant <value = bool {{1}}> () y = Loop (n, c, x) {_BODY}",
    ),
    "NonZero": _declared("float[4] x", "NonZero (x)", "1, 2", "int64"),
    "OneHot": _declared("int64[2] x, int64 d, float[2] v", "OneHot (x, d, v)"),
    "Pad": _declared("float[1, 3] x, int64[4] p", "Pad (x, p)"),
    "QLinearConv": (
        "(uint8[1, 1, 2, 2] x) => (uint8[1, 1, 2, 2] y) " + _CONV.replace("<", "<float s = {1}, "),
        f"(uint8[1, 1, 2, 2] x, float s) => (uint8[1, 1, 2, 2] y) {_CONV}",
    ),
    "QLinearMatMul": (
        "(uint8[2, 3] x) => (uint8[2, 1] y) " + _PRODUCT.replace("<", "<float s = {1}, "),
        f"(uint8[2, 3] x, float[2] s) => (uint8[2, 1] y) {_PRODUCT}",
    ),
    "Range": _declared("int64 a, int64 b, int64 c", "Range (a, b, c)", "3", "int64"),
    "Reshape": _declared("float[6] x, int64[2] s", "Reshape (x, s)"),
    "Resize": (_RESIZE.format(axes="2, 3"), _RESIZE.format(axes="-2, -1")),
    "RoiAlign": (
        "(float[1, 1, 4, 4] x, float[1, 4] r, int64[1] b) => (float[1, 1, 1, 1] y) { y = RoiAlign (x, r, b) }",
        '(float[1, 1, 4, 4] x, float[1, 4] r, int64[1] b) => (float[1, 1, 1, 1] y) { y = RoiAlign <mode = "max"> '
        "(x, r, b) }",
    ),
    "Scan": (
        _SCAN.format(n=3) + "(float[2] o) { o = Neg (r) }> }",
        _SCAN.format(n="N") + "(float[2] o) { o = Neg (r) }> }",
    ),
    "Slice": _declared("float[4, 5] x, int64[2] a, int64[2] b", "Slice (x, a, b)"),
    "Split": (
        "(float[4] x, int64[2] s) => (float[1] y, float[3] z) { y, z = Split (x, s) }",
        "(float[4] x, int64[2] s) => (float[N] y, float[M] z) { y, z = Split (x, s) }",
    ),
    "Tile": _declared("float[1, 3] x, int64[2] s", "Tile (x, s)"),
    "TopK": (
        "(float[1, 5] x) => (float[1, 2] y, int64[1, 2] i) { k = Constant <value_ints = [2]> () y, i = TopK (x, k) }",
        "(float[1, 40000] x) => (float[1, 2] y, int64[1, 2] i) { k = Constant <value_ints = [2]> () "
        "y, i = TopK (x, k) }",
    ),
}
"""For each operator, a graph that is taken and one that is not."""


def read(op: str, text: str) -> Graph:
    header = f'<ir_version: 10, opset_import: ["": {OPSETS.get(op, 21)}]> net {text}'
    return from_proto(onnx.parser.parse_model(header))


def lower(graph: Graph) -> None:
    from optc.targets.tvm.cpu.machines import host
    from optc.targets.tvm.relax.module import import_graph

    target = HostTarget()
    for one in (Clean(), *target.legalisation().passes):
        one.run(graph, Context(target.facts))
    infer(graph)
    import_graph(graph, host("x86-64-v3"), {})


def test_every_condition_has_a_case() -> None:
    assert set(CASES) == set(CONDITIONS)


@pytest.mark.parametrize("op", sorted(CONDITIONS))
def test_what_is_refused_is_what_the_table_says(op: str) -> None:
    taken, refused = CASES[op]
    target = table.parse("host")[0]
    target.check_inputs(read(op, taken))
    lower(read(op, taken))
    words = re.escape(f"of {op}, targets of TVM take {support(op).note}")
    with pytest.raises(TargetError, match=words):
        target.check_inputs(read(op, refused))
    with pytest.raises(TargetError, match=words):
        lower(read(op, refused))


def test_no_rule_refuses_by_itself() -> None:
    """But for what is open or unknown, which `Call` tells of."""
    for path in RULES.glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        refusing = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "refuse"]
        assert not refusing or path.name == "call.py", path


@pytest.mark.parametrize("name", ["T", "sequence.length", "batch-size", "7", None])
@pytest.mark.parametrize("end", ["length", "shorter"])
@pytest.mark.parametrize("last", ["cut", "y"])
def test_sizes_that_follow_from_those_of_the_inputs_are_taken(name: str | None, end: str, last: str) -> None:
    """A table of positions is cut to the length of the input: what transformers do, whatever the size is called."""
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        g (float[1, T] x) => (float[1, K] y) <float[1, 4] table = {{1, 2, 3, 4}}, int64[1] zero = {{0}},
        int64[1] one = {{1}}> {{ length = Shape <start = 1, end = 2> (x) shorter = Sub (length, one)
        {last} = Slice (table, zero, {end}, one)  {"y = Neg (cut)" * (last == "cut")} }}"""
    )
    dim = proto.graph.input[0].type.tensor_type.shape.dim[1]
    dim.Clear()
    if name is not None:
        dim.dim_param = name
    graph = from_proto(proto)
    infer(graph)
    (node,) = (node for node in graph if node.op == "Slice")
    assert CONDITIONS["Slice"].met(node)


@pytest.mark.parametrize("name", ["T", "loo", "oor", "K"])
def test_sizes_that_do_not_follow_are_refused(name: str) -> None:
    """Nor do they where the name of another is a part of what they are called."""
    graph = read("Range", f"(int64 a, int64 b, int64 c, float[{name}] x) => (int64[floor] y) {{ y = Range (a, b, c) }}")
    infer(graph)
    (node,) = graph
    assert not CONDITIONS["Range"].met(node)


def test_advice_says_to_fix_sizes_where_some_are_open() -> None:
    for size, open_ones in (("N", True), ("2", False)):
        graph = read("NonZero", f"(float[{size}] x) => (int64[1, M] y) {{ y = NonZero (x) }}")
        with pytest.raises(TargetError) as refusal:
            table.parse("host")[0].check_inputs(graph)
        assert ("--shape" in str(refusal.value)) is open_ones
        assert "declare the size of its result" in str(refusal.value)


@pytest.mark.parametrize("packed", [True, False])
def test_scales_that_follow_from_constants_are_taken(packed: bool) -> None:
    """A file may store scales packed, behind operators that fold as it is loaded; not those that are random."""
    scale = "e = Cast <to = 1> (codes) two = Cast <to = 1> (base) s = Pow (two, e)"
    graph = read(
        "QLinearConv",
        "(uint8[1, 1, 2, 2] x) => (uint8[1, 1, 2, 2] y) <int8[1] codes = {-1}, int8 base = {2}, float t = {2}, "
        f"uint8 o = {{0}}, uint8[1, 1, 1, 1] w = {{3}}> {{ {scale if packed else 's = RandomNormal <shape = [1]> ()'} "
        "y = QLinearConv (x, t, o, w, s, o, t, o) }",
    )
    if packed:
        lower(graph)
        table.parse("host")[0].check_inputs(graph)
    infer(graph)
    assert all(CONDITIONS["QLinearConv"].met(node) is packed for node in graph if node.op == "QLinearConv")
