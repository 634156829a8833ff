"""Real networks as libraries, in float, half precision and int8: each answers as the graph that it was built from."""

from __future__ import annotations

from pathlib import Path

import pytest

import optc

pytestmark = pytest.mark.slow
pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

FORMS = {"float": "clean", "float16": "quant:weights=float16", "int8": "quant:slower=int8"}
EMULATED = ("kws_dscnn", "silero_vad16k")
"""Those that take seconds under an emulator."""


def names(kit: Path) -> list[str]:
    return sorted(path.stem for path in (kit / "models").glob("*.onnx"))


@pytest.mark.parametrize("form", FORMS)
def test_on_this_machine(form: str, kit: Path, tmp_path: Path) -> None:
    assert len(names(kit)) > 5
    for name in names(kit):
        answers(kit, name, form, "host", tmp_path)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", ["arm64", "armv7"])
def test_under_an_emulator(target: str, form: str, kit: Path, tmp_path: Path) -> None:
    for name in EMULATED:
        answers(kit, name, form, target, tmp_path)


def answers(kit: Path, name: str, form: str, target: str, folder: Path) -> None:
    out = folder / f"{name}.tar"
    build = optc.compile(
        str(kit / "models" / f"{name}.onnx"), FORMS[form], target=target, output=out, samples=12, guard=False, seed=0
    )
    validation = build.report.validation
    assert validation is not None
    assert validation.samples > 0, (name, validation)
    assert out.is_file()
