"""What takes each operator, by name: builds ask it before any work, and so without TVM, which takes long to load.

Two tables name the rules, each as `module:function` of a module here. A rule returns nothing where it does not fit the
node; what has no rule, or does not fit, goes through TVM's own converter, as far as that answers rightly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .conditions import REDUCTIONS

if TYPE_CHECKING:
    from ....ir.node import Node
    from .importer import Importer
    from .rules.call import LoweringCall

_UNARY = (
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Abs", "Neg", "Exp", "Sqrt", "Softplus",
    "Gelu", "Identity", "Selu", "Mish", "Erf", "Floor", "Ceil", "Round", "Cast",
)  # fmt: skip
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "Pow")

LOWERINGS: Mapping[str, str] = {
    "AveragePool": "lowering:lower_average_pool",
    "Clip": "lowering:lower_clip",
    "Concat": "lowering:lower_concat",
    "Conv": "convolutions:lower_conv",
    "ConvTranspose": "convolutions:lower_conv_transpose",
    "DequantizeLinear": "integer_layers:lower_dequantize",
    "Gemm": "products:lower_gemm",
    "GlobalAveragePool": "lowering:lower_global_average_pool",
    "MatMul": "products:lower_matmul",
    "MaxPool": "lowering:lower_max_pool",
    "Pad": "integer_layers:lower_pad",
    "QuantizeLinear": "integer_layers:lower_quantize",
    "ReduceMean": "lowering:lower_reduce_mean",
    "Slice": "lowering:lower_slice",
    **dict.fromkeys((*_UNARY, *_BINARY), "lowering:lower_elementwise"),
}
"""Operators on images in blocks, and what stands between them."""

RULES: Mapping[str, str] = {
    **dict.fromkeys(REDUCTIONS, "reductions:lower_reduce"),
    **dict.fromkeys(("ArgMax", "ArgMin"), "extremes:lower_arg_extreme"),
    **dict.fromkeys(("Max", "Min"), "extremes:lower_pairs"),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), "recurrent:lower_cell"),
    "BatchNormalization": "normalizing:lower_batch_normalization",
    "BitCast": "casts:lower_bit_cast",
    "BitShift": "arithmetic:lower_bit_shift",
    "Cast": "casts:lower_cast",
    "Clip": "arithmetic:lower_clip",
    "Compress": "selection:lower_compress",
    "ConvInteger": "codes:lower_conv_integer",
    "Cosh": "arithmetic:lower_hyperbolic",
    "CumProd": "arithmetic:lower_cumulative",
    "CumSum": "arithmetic:lower_cumulative",
    "DequantizeLinear": "blocks:lower_dequantize",
    "Dropout": "normalizing:lower_dropout",
    "Hardmax": "extremes:lower_hardmax",
    "IsInf": "arithmetic:lower_is_inf",
    "LayerNormalization": "normalizing:lower_layer_normalization",
    "LpNormalization": "normalizing:lower_lp_normalization",
    "Mod": "arithmetic:lower_mod",
    "Pow": "arithmetic:lower_pow",
    "Shrink": "arithmetic:lower_shrink",
    "Sign": "arithmetic:lower_sign",
    "Sinh": "arithmetic:lower_hyperbolic",
    "CenterCropPad": "sizes:lower_center_crop_pad",
    "ConstantOfShape": "sizes:lower_constant_of_shape",
    "Expand": "sizes:lower_expand",
    "EyeLike": "sizes:lower_eye_like",
    "NonZero": "selection:lower_non_zero",
    "OneHot": "sizes:lower_one_hot",
    "Pad": "slices:lower_pad",
    "QuantizeLinear": "blocks:lower_quantize",
    "Range": "sizes:lower_range",
    "Reshape": "sizes:lower_reshape",
    "Resize": "resizing:lower_resize",
    "ReverseSequence": "selection:lower_reverse_sequence",
    "Shape": "sizes:lower_shape",
    "Size": "sizes:lower_size",
    "Slice": "slices:lower_slice",
    "RoiAlign": "resizing:lower_roi_align",
    "SpaceToDepth": "blocks:lower_space_to_depth",
    "Split": "sizes:lower_split",
    "Squeeze": "sizes:lower_squeeze",
    "ThresholdedRelu": "arithmetic:lower_thresholded_relu",
    "Tile": "sizes:lower_tile",
    "TopK": "sorting:lower_top_k",
    "Trilu": "sizes:lower_trilu",
    "Unsqueeze": "sizes:lower_unsqueeze",
}
"""Operators by kernels of our own, in plain layout, each in a file of `rules`."""

CONVERTED = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Clip", "Concat", "Constant", "Conv",
    "ConvTranspose", "Cos", "DepthToSpace", "DequantizeLinear", "Div", "DynamicQuantizeLinear", "Einsum", "Elu",
    "Equal", "Erf", "Exp", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm",
    "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization",
    "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsNaN", "LRN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "LogSoftmax", "LpPool", "MatMul", "MatMulInteger", "Max", "MaxPool", "MaxUnpool", "Mean",
    "MeanVarianceNormalization", "Min", "Mish", "Mul", "Neg", "Not", "OptionalGetElement", "OptionalHasElement", "Or",
    "PRelu", "QuantizeLinear", "Reciprocal", "Relu", "RoiAlign", "Round", "Scatter", "ScatterElements", "ScatterND",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tan", "Tanh",
    "ThresholdedRelu", "Transpose", "Where", "Xor",
})  # fmt: skip
"""What TVM's converter answers as ONNX's node tests ask."""


def lowering(operator: str) -> Callable[[Importer, Node], Any] | None:
    """The rule of `LOWERINGS`, which gives an expression or an image in blocks."""
    return None if operator not in LOWERINGS else _resolved(LOWERINGS[operator], __package__)


def kernel(operator: str) -> Callable[[LoweringCall], Any] | None:
    """The rule of `RULES`, which gives the results of a node, one or a list."""
    return None if operator not in RULES else _resolved(RULES[operator], f"{__package__}.rules")


def _resolved(place: str, package: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    rule: Callable[..., Any] = getattr(import_module(f".{module}", package), name)
    return rule
