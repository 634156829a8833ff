"""Operators of `ai.onnx.ml` that prepare columns of a table or regress on them, which ONNX's inference leaves out."""

from __future__ import annotations

from ...types import DType
from .call import Call, Cannot, Fact, Rule


def scaler(call: Call) -> list[Fact]:
    """Scaler and Normalizer: floats, whatever goes in."""
    return [Fact(DType.FLOAT, call.shape(0))]


def imputer(call: Call) -> list[Fact]:
    x = call.fact(0)
    return [Fact(x.dtype, call.shape(0))]


def label_encoder(call: Call) -> list[Fact]:
    """LabelEncoder of version 1 and CategoryMapper: words become numbers, and numbers words. Since version 2 the
    values tell the type, which ONNX infers."""
    if call.node.op == "LabelEncoder" and call.version > 1:
        raise Cannot
    return [Fact(DType.INT64 if call.fact(0).dtype is DType.STRING else DType.STRING, call.shape(0))]


def regressor(call: Call) -> list[Fact]:
    """LinearRegressor and SVMRegressor: one column a target, one row a sample."""
    x, targets = call.shape(0), call.node.get_int("targets", 1)
    return [Fact(DType.FLOAT, (x[0] if len(x) > 1 else 1, targets))]


def feature_vectorizer(call: Call) -> list[Fact]:
    """Columns side by side, each input cut or filled to its dimension."""
    columns = call.node.get_ints("inputdimensions")
    if not columns:
        raise Cannot
    x = call.shape(0)
    return [Fact(DType.FLOAT, (x[0] if len(x) > 1 else 1, sum(columns)))]


RULES: dict[str, Rule] = {
    "CategoryMapper": label_encoder,
    "FeatureVectorizer": feature_vectorizer,
    "Imputer": imputer,
    "LabelEncoder": label_encoder,
    "LinearRegressor": regressor,
    "Normalizer": scaler,
    "SVMRegressor": regressor,
    "Scaler": scaler,
}
