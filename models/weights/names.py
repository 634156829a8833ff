"""How other frameworks name the parameters of the zoo's families.

A scheme tells, for a layer of a network that the zoo built, the names of its convolution and of the normalisation
behind it. It is chosen by the names that a file holds: the one under which the network finds all of its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ...ir.graph import Graph


@dataclass(frozen=True, slots=True)
class NamedLayer:
    """One convolution or dense layer of a network of the zoo.

    `role` is the last part of its name. Of a layer within a block: `stage` and `index` count from 0, `block` counts the
    blocks of the whole network, and `place` the layers of its block, gates as one. `blocks` are those of the network.
    """

    family: str
    role: str
    blocks: int
    block: int = 0
    stage: int = 0
    index: int = 0
    place: int = 0
    widens: bool = False
    depthwise: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """The prefixes of a layer's own parameters and of its normalisation's; none where it has none."""

    layer: str
    norm: str = ""


@dataclass(frozen=True, slots=True)
class NamingScheme:
    """`names` gives a layer's; `epsilon` is that of the networks trained under it, `pads` their windows'.

    `epsilon` 0 and `pads` "" say that networks of both kinds bear these names, so that only the user can tell.
    `channels_last` says that kernels are stored as (height, width, in, out), and `leaves` what the parameters are
    called: kernel, depthwise kernel, bias, gamma, beta, mean, variance.
    """

    name: str
    names: Callable[[NamedLayer], Names | None]
    epsilon: float
    pads: str
    leaves: tuple[str, str, str, str, str, str, str]
    channels_last: bool = False


def layers(graph: Graph) -> Iterator[tuple[str, NamedLayer]]:
    """The names of a network's layers, and what they are, in order."""
    named = [(node.name, node) for node in graph if node.op in ("Conv", "Gemm")]
    blocks = list(dict.fromkeys(name.rpartition(f".{_role(name)}")[0] for name, _ in named if _stage(name)))
    for name, node in named:
        role, place = _role(name), _stage(name)
        depthwise = node.op == "Conv" and "depthwise" in role
        if place is None:
            yield name, NamedLayer(graph.name, role, len(blocks), depthwise=depthwise)
            continue
        prefix = name.rpartition(f".{role}")[0]
        roles = list(
            dict.fromkeys(_role(other).partition(".")[0] for other, _ in named if other.startswith(f"{prefix}."))
        )
        yield (
            name,
            NamedLayer(
                graph.name, role, len(blocks), blocks.index(prefix), *place,
                roles.index(role.partition(".")[0]), "expand" in roles, depthwise,
            ),
        )  # fmt: skip


def _stage(name: str) -> tuple[int, int] | None:
    """Stage and index within it of a layer's block, from 0."""
    match = re.match(r"(?:stage(\d+)\.)?block(\d+)\.", name)
    return match and (int(match[1] or 1) - 1, int(match[2]) - 1)


def _role(name: str) -> str:
    return re.sub(r"^(stage\d+\.)?(block\d+\.)?", "", name)


# -- PyTorch

_TORCH = ("weight", "weight", "bias", "weight", "bias", "running_mean", "running_var")


def _torchvision(layer: NamedLayer) -> Names | None:
    """torchvision.models: mobilenetv2, mobilenetv3, efficientnet."""
    second = layer.family == "mobilenet_v2"
    efficient = layer.family == "efficientnet"
    if layer.family not in ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small") and not efficient:
        return None
    last = 8 if efficient else layer.blocks + 1
    match layer.role:
        case "stem":
            return Names("features.0.0", "features.0.1")
        case "head":
            return Names(f"features.{last}.0", f"features.{last}.1")
        case "features":
            return Names("classifier.0")
        case "classifier":
            return Names("classifier.1" if second or efficient else "classifier.3")
    if efficient:
        prefix = f"features.{layer.stage + 1}.{layer.index}.block.{layer.place}"
    else:
        prefix = f"features.{layer.block + 1}.{'conv' if second else 'block'}.{layer.place}"
    if layer.role.startswith("gate."):
        return Names(f"{prefix}.fc{1 if layer.role == 'gate.squeeze' else 2}")
    if second and layer.role == "project":
        return Names(prefix, f"features.{layer.block + 1}.conv.{layer.place + 1}")
    return Names(f"{prefix}.0", f"{prefix}.1")


_TIMM = {
    "expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3"),
}  # fmt: skip
_TIMM_FIRST = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}


def _timm(layer: NamedLayer) -> Names | None:
    """timm.models: mobilenetv3.py and efficientnet.py, which hold MobileNetV2, V3, EfficientNet, Lite and MnasNet."""
    if layer.family in ("mobilenet_v1", "nasnet_a"):
        return None
    third = layer.family.startswith("mobilenet_v3")
    match layer.role:
        case "stem":
            return Names("conv_stem", "bn1")
        case "head":
            stages = 6 if layer.family == "mobilenet_v3_large" else 5
            return Names(f"blocks.{stages}.0.conv", f"blocks.{stages}.0.bn1") if third else Names("conv_head", "bn2")
        case "features":
            return Names("conv_head")
        case "classifier":
            return Names("classifier")
    prefix = f"blocks.{layer.stage}.{layer.index}"
    if layer.role.startswith("gate."):
        return Names(f"{prefix}.se.conv_{'reduce' if layer.role == 'gate.squeeze' else 'expand'}")
    convolution, norm = (_TIMM if layer.widens else _TIMM_FIRST)[layer.role]
    return Names(f"{prefix}.{convolution}", f"{prefix}.{norm}")


_EFFICIENT = {
    "expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2"),
    "gate.squeeze": ("_se_reduce", ""), "gate.excite": ("_se_expand", ""),
}  # fmt: skip


def _efficientnet_pytorch(layer: NamedLayer) -> Names | None:
    """efficientnet-pytorch, and what follows it for EfficientNet-Lite."""
    if not layer.family.startswith("efficientnet"):
        return None
    whole = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1"), "classifier": ("_fc", "")}
    if layer.role in whole:
        return Names(*whole[layer.role])
    convolution, norm = _EFFICIENT[layer.role]
    prefix = f"_blocks.{layer.block}"
    return Names(f"{prefix}.{convolution}", f"{prefix}.{norm}" if norm else "")


# -- TensorFlow

_SLIM = ("weights", "depthwise_weights", "biases", "gamma", "beta", "moving_mean", "moving_variance")
_KERAS = ("kernel", "depthwise_kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
_KERAS_3 = ("kernel", "kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
_SLIM_SCOPES = {"mobilenet_v1": "MobilenetV1", "mobilenet_v2": "MobilenetV2"} | dict.fromkeys(
    ("mobilenet_v3_large", "mobilenet_v3_small"), "MobilenetV3"
)
_GATES = {"gate.squeeze": "squeeze_excite/Conv", "gate.excite": "squeeze_excite/Conv_1"}


def _slim(layer: NamedLayer) -> Names | None:
    """tensorflow/models, slim/nets/mobilenet: the names of the checkpoints' variables."""
    scope = _SLIM_SCOPES.get(layer.family)
    if scope is None:
        return None
    first = layer.family == "mobilenet_v1"
    whole = {"stem": "Conv2d_0" if first else "Conv", "head": "Conv_1", "features": "Conv_2"}
    if layer.role == "classifier":
        return Names(f"{scope}/Logits/Conv2d_1c_1x1")
    if layer.role in whole:
        prefix = f"{scope}/{whole[layer.role]}"
        return Names(prefix, f"{prefix}/BatchNorm" if layer.role != "features" else "")
    if first:
        prefix = f"{scope}/Conv2d_{layer.block + 1}_{layer.role}"
        return Names(prefix, f"{prefix}/BatchNorm")
    block = f"{scope}/expanded_conv{f'_{layer.block}' if layer.block else ''}"
    if layer.role in _GATES:
        return Names(f"{block}/{_GATES[layer.role]}")
    return Names(f"{block}/{layer.role}", f"{block}/{layer.role}/BatchNorm")


def _keras(layer: NamedLayer) -> Names | None:
    """keras.applications of Keras 2: the layers of its .h5 files."""
    match layer.family:
        case "mobilenet_v1":
            return _keras_v1(layer)
        case "mobilenet_v2":
            return _keras_v2(layer)
        case "mobilenet_v3_large" | "mobilenet_v3_small":
            return _keras_v3(layer)
        case "efficientnet":
            return _keras_efficientnet(layer)
        case _:
            return None


def _keras_3(layer: NamedLayer) -> Names | None:
    """keras.applications of Keras 3, which has no slashes in the names of layers."""
    names = _keras(layer)
    if names is None or not layer.family.startswith("mobilenet_v3"):
        return names
    layer_name, norm = (
        name.lower().replace("/batchnorm", "_bn").replace("/", "_") for name in (names.layer, names.norm)
    )
    return Names(layer_name, norm)


def _keras_early(layer: NamedLayer) -> Names | None:
    """keras.applications.mobilenetv2 of Keras 2.1, whose blocks bear their number twice."""
    if layer.family != "mobilenet_v2" or layer.role in ("stem", "head", "classifier"):
        return _keras_logits(layer)
    block = f"{layer.block}_conv_{layer.block}"
    return Names(f"mobl{block}_{layer.role}", f"bn{block}_bn_{layer.role}")


def _keras_logits(layer: NamedLayer) -> Names | None:
    """keras-applications, the package: its MobileNetV2 ends in another name."""
    if layer.family != "mobilenet_v2":
        return None
    return Names("Logits") if layer.role == "classifier" else _keras_v2(layer)


def _keras_v1(layer: NamedLayer) -> Names:
    if layer.role == "classifier":
        return Names("conv_preds")
    kind = "dw" if layer.role == "depthwise" else "pw"
    name = "conv1" if layer.role == "stem" else f"conv_{kind}_{layer.block + 1}"
    return Names(name, f"{name}_bn")


def _keras_v2(layer: NamedLayer) -> Names:
    whole = {"stem": ("Conv1", "bn_Conv1"), "head": ("Conv_1", "Conv_1_bn"), "classifier": ("predictions", "")}
    if layer.role in whole:
        return Names(*whole[layer.role])
    name = f"{f'block_{layer.block}' if layer.block else 'expanded_conv'}_{layer.role}"
    return Names(name, f"{name}_BN")


def _keras_v3(layer: NamedLayer) -> Names:
    whole = {"stem": "Conv", "head": "Conv_1"}
    if layer.role in whole:
        return Names(whole[layer.role], f"{whole[layer.role]}/BatchNorm")
    if layer.role in ("features", "classifier"):
        return Names("Conv_2" if layer.role == "features" else "Logits")
    block = f"expanded_conv{f'_{layer.block}' if layer.block else ''}"
    if layer.role in _GATES:
        return Names(f"{block}/{_GATES[layer.role]}")
    return Names(f"{block}/{layer.role}", f"{block}/{layer.role}/BatchNorm")


def _keras_efficientnet(layer: NamedLayer) -> Names:
    whole = {"stem": ("stem_conv", "stem_bn"), "head": ("top_conv", "top_bn"), "classifier": ("predictions", "")}
    if layer.role in whole:
        return Names(*whole[layer.role])
    block = f"block{layer.stage + 1}{chr(ord('a') + layer.index)}"
    parts = {
        "expand": ("expand_conv", "expand_bn"), "depthwise": ("dwconv", "bn"),
        "project": ("project_conv", "project_bn"),
        "gate.squeeze": ("se_reduce", ""), "gate.excite": ("se_expand", ""),
    }  # fmt: skip
    convolution, norm = parts[layer.role]
    return Names(f"{block}_{convolution}", f"{block}_{norm}" if norm else "")


SCHEMES = (
    NamingScheme("torchvision", _torchvision, 1e-5, "torch", _TORCH),
    NamingScheme("efficientnet-pytorch", _efficientnet_pytorch, 1e-3, "tf", _TORCH),
    NamingScheme("timm", _timm, 0.0, "", _TORCH),
    NamingScheme("TF-slim", _slim, 1e-3, "tf", _SLIM, channels_last=True),
    NamingScheme("Keras", _keras, 1e-3, "tf", _KERAS, channels_last=True),
    NamingScheme("Keras 3", _keras_3, 1e-3, "tf", _KERAS_3, channels_last=True),
    NamingScheme("keras-applications", _keras_logits, 1e-3, "tf", _KERAS, channels_last=True),
    NamingScheme("Keras 2.1", _keras_early, 1e-3, "tf", _KERAS, channels_last=True),
)


def parameters(graph: Graph, scheme: NamingScheme) -> dict[str, tuple[str, bool]] | None:
    """For each parameter of a network its name under a scheme, and whether it is a depthwise kernel.

    `None` where the scheme does not know the family.
    """
    kernel, depthwise, bias, *norms = scheme.leaves
    separator = "." if scheme.leaves is _TORCH else "/"
    names: dict[str, tuple[str, bool]] = {}
    for name, layer in layers(graph):
        names_of = scheme.names(layer)
        if names_of is None:
            return None
        names[f"{name}.weight"] = (
            f"{names_of.layer}{separator}{depthwise if layer.depthwise else kernel}",
            layer.depthwise,
        )
        names[f"{name}.bias"] = f"{names_of.layer}{separator}{bias}", False
        for part, leaf in zip(("gamma", "beta", "mean", "variance"), norms):
            names[f"{name}.bn.{part}"] = f"{names_of.norm}{separator}{leaf}", False
    present = {value.name for value in graph.constants}
    return {name: source for name, source in names.items() if name in present}


def nearest_scheme(tensors: Iterable[str], graph: Graph) -> NamingScheme | None:
    """The scheme under which a network finds most of its parameters among the names of `tensors`, if any at all."""
    names = set(tensors)

    def hits(scheme: NamingScheme) -> int:
        wanted = parameters(graph, scheme) or {}
        return sum(source in names for source, _ in wanted.values())

    best = max(SCHEMES, key=hits)
    return best if hits(best) else None
