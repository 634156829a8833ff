"""The rules by operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from . import (
    arithmetic,
    blocks,
    casts,
    codes,
    extremes,
    normalizing,
    recurrent,
    reductions,
    resizing,
    selection,
    sizes,
    slices,
    sorting,
)
from .call import Call

Rule: TypeAlias = Callable[[Call], Any]
"""Gives the results of a node, one or a list; nothing where TVM's own converter has the form at hand."""

RULES: dict[str, Rule] = {
    **dict.fromkeys(reductions.OPERATORS, reductions.lower_reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), extremes.lower_arg_extreme),
    **dict.fromkeys(("Max", "Min"), extremes.lower_pairs),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), recurrent.lower_cell),
    "BatchNormalization": normalizing.lower_batch_normalization,
    "BitCast": casts.lower_bit_cast,
    "BitShift": arithmetic.lower_bit_shift,
    "Cast": casts.lower_cast,
    "Clip": arithmetic.lower_clip,
    "Compress": selection.lower_compress,
    "ConvInteger": codes.lower_conv_integer,
    "Cosh": arithmetic.lower_hyperbolic,
    "CumProd": arithmetic.lower_cumulative,
    "CumSum": arithmetic.lower_cumulative,
    "DequantizeLinear": blocks.lower_dequantize,
    "Dropout": normalizing.lower_dropout,
    "Hardmax": extremes.lower_hardmax,
    "IsInf": arithmetic.lower_is_inf,
    "LayerNormalization": normalizing.lower_layer_normalization,
    "LpNormalization": normalizing.lower_lp_normalization,
    "Mod": arithmetic.lower_mod,
    "Pow": arithmetic.lower_pow,
    "Shrink": arithmetic.lower_shrink,
    "Sign": arithmetic.lower_sign,
    "Sinh": arithmetic.lower_hyperbolic,
    "CenterCropPad": sizes.lower_center_crop_pad,
    "ConstantOfShape": sizes.lower_constant_of_shape,
    "Expand": sizes.lower_expand,
    "EyeLike": sizes.lower_eye_like,
    "NonZero": selection.lower_non_zero,
    "OneHot": sizes.lower_one_hot,
    "Pad": slices.lower_pad,
    "QuantizeLinear": blocks.lower_quantize,
    "Range": sizes.lower_range,
    "Reshape": sizes.lower_reshape,
    "Resize": resizing.lower_resize,
    "ReverseSequence": selection.lower_reverse_sequence,
    "Shape": sizes.lower_shape,
    "Size": sizes.lower_size,
    "Slice": slices.lower_slice,
    "RoiAlign": resizing.lower_roi_align,
    "SpaceToDepth": blocks.lower_space_to_depth,
    "Split": sizes.lower_split,
    "Squeeze": sizes.lower_squeeze,
    "ThresholdedRelu": arithmetic.lower_thresholded_relu,
    "Tile": sizes.lower_tile,
    "TopK": sorting.lower_top_k,
    "Trilu": sizes.lower_trilu,
    "Unsqueeze": sizes.lower_unsqueeze,
}
