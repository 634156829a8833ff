"""What a configuration means, and the one line that each fault in one gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from optc.cli.chosen import choose
from optc.compiler import read
from optc.compiler.options import Options
from optc.errors import OutputError, SpecError
from optc.ir.onnx.writer import save
from optc.models import zoo
from optc.passes.base import Override
from optc.project import init
from optc.project.config import Config, load

FULL = """
passes = ["prune:ratio=0.5", "quant"]   # for all models
seed = 3

[[model]]
path = "a.onnx"
data = "calib"
mean = [1, 2.5, 3]
std = 58
layout = "NHWC"
resize = "32x48"
samples = 64
targets = ["onnx", "onnx:cpu=arm"]
budget = "size=50%"
threads = 1
freeze = true
clean = false
guard = false
check = false
min-agreement = 0.9

[[model.override]]
match = "head.*"
keep = true

[[model.override]]
op = "Conv"
passes = { svd = { ratio = 0.25, form = "spatial" }, quant = "keep", prune = { keep = true } }

[[model]]
path = "zoo:digits_dscnn"
name = "digits"
passes = "clean"
output = "out/{name}-{target}.onnx"
"""


def config(folder: Path, text: str) -> Config:
    path = folder / "optc.toml"
    path.write_text(text, encoding="utf-8")
    return load(str(path))


def test_every_key_means_what_it_says(tmp_path: Path) -> None:
    read = config(tmp_path, FULL)
    a, digits = read.entries
    assert a.path == str(tmp_path / "a.onnx")
    assert a.targets == ("onnx", "onnx:cpu=arm")
    assert a.options == Options(
        passes="prune:ratio=0.5,quant",
        data=str(tmp_path / "calib"),
        mean=(1.0, 2.5, 3.0),
        std=(58.0,),
        layout="NHWC",
        resize=(32, 48),
        samples=64,
        seed=3,
        threads=1,
        freeze=True,
        clean=False,
        guard=False,
        min_agreement=0.9,
        budget="size=50%",
        check=False,
        overrides=(
            Override("head.*", keep=True),
            Override(
                op="Conv",
                skips=("prune", "quant"),
                passes={"svd": {"ratio": 0.25, "form": "spatial"}},
            ),
        ),
    )
    assert digits.options == Options(passes="clean", seed=3)
    assert a.artifact("onnx") == str(tmp_path / "a.optc.onnx"), "a.onnx is the model"
    assert a.artifact("onnx:cpu=arm") == str(tmp_path / "a.onnx-cpu=arm.onnx")
    assert digits.artifact("onnx") == str(tmp_path / "out" / "digits-onnx.onnx")
    assert read.lock_path == str(tmp_path / "optc.lock")


FAULTS = {
    "unknown key": ('pases = "clean"\n[[model]]\npath = "a"\n', 1, "'pases' here. Did you mean 'passes'?"),
    "unknown key of a model": ('[[model]]\npath = "a"\n\nsed = 1\n', 4, "'sed' here. Did you mean 'seed'?"),
    "of the second model": ('[[model]]\npath = "a"\n[[model]]\npath = "b"\ndatta = "x"\n', 5, "Did you mean 'data'?"),
    "path for all": ('path = "a"\n[[model]]\n', 1, "there is no key 'path' here"),
    "of an override": ('[[model]]\npath="a"\n[[model.override]]\nmach = "x"\n', 4, "Did you mean 'match'?"),
    "wrong kind": ('[[model]]\npath = "a"\nseed = "x"\n', 3, "'seed' takes a whole number from 0 to 2147483647"),
    "flag": ('clean = "no"\n[[model]]\npath = "a"\n', 1, "'clean' takes true or false, not 'no'"),
    "share": ('[[model]]\npath = "a"\nmin-agreement = 98\n', 3, "a number from 0 to 1, not 98"),
    "size": ('[[model]]\npath = "a"\nresize = "big"\n', 3, "a size such as"),
    "std": ('[[model]]\npath = "a"\nstd = 0\n', 3, "a positive number"),
    "layout": ('[[model]]\npath = "a"\nlayout = "nchw"\n', 3, "auto, NCHW or NHWC"),
    "no path": ('[[model]]\nseed = 1\n', 1, "a model needs a path"),
    "no model": ("seed = 1\n", None, "names no model"),
    "a table": ('[model]\npath = "a"\n', 1, "two brackets"),
    "twice": ('[[model]]\npath = "x/a"\n[[model]]\npath = "y/a"\n', 3, "two models are called 'a'"),
    "one file": ('output = "o.onnx"\n[[model]]\npath = "a"\n[[model]]\npath = "b"\n', 4, "two builds would write"),
    "one file of two targets": (
        '[[model]]\npath = "a"\noutput = "o.onnx"\ntargets = ["onnx", "onnx:cpu=arm"]\n',
        3,
        "o.onnx; put {name} or {target}",
    ),
    "passes": ('[[model]]\npath = "a"\npasses = "quantt"\n', 3, "no pass is called 'quantt'"),
    "shared passes": ('passes = "quantt"\n[[model]]\npath = "a"\n', 1, "no pass is called 'quantt'"),
    "target": ('[[model]]\npath = "a"\ntargets = ["onx"]\n', 3, "no target is called 'onx'"),
    "budget": ('[[model]]\npath = "a"\nbudget = "sise=1MB"\n', 3, "size"),
    "override of nothing": ('[[model]]\npath="a"\n[[model.override]]\nmatch = "x"\n', 3, "overrides nothing"),
    "override for nobody": ('[[model]]\npath="a"\n[[model.override]]\nkeep = true\n', 3, "which layers it is for"),
    "override pass": (
        '[[model]]\npath="a"\n[[model.override]]\nop="Conv"\npasses = { svdd = "keep" }\n', 3, "Did you mean 'svd'?"
    ),
    "override option": (
        '[[model]]\npath="a"\n[[model.override]]\nop="Conv"\npasses = { svd = { ratoi = 1 } }\n', 3, "'ratio'?"
    ),
    "override value": (
        '[[model]]\npath="a"\n[[model.override]]\nop="Conv"\npasses = { svd = { ratio = 7 } }\n', 3, "0.01 to 1"
    ),
    "override of the whole": (
        '[[model]]\npath="a"\n[[model.override]]\nop="Conv"\npasses = { svd = { scope = "global" } }\n',
        3,
        "holds for the whole model; a layer can have its own error, form, ratio",
    ),
    "no TOML": ("[[model]]\npath = \n", None, "is not TOML: Invalid value (at line 2"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "says"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line_with_its_place(text: str, line: int | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        config(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert says in message
    assert message.startswith(f"{tmp_path / 'optc.toml'}{f':{line}' if line else ''}: ")


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("out", "out/a.optc.onnx"),
        ("out/v1.2", "out/v1.2/a.optc.onnx"),
        ("out/v1.2/b.onnx", "out/v1.2/b.onnx"),
        ("{name}.{target}", "a.onnx"),
        ("{name}/v1", "a/v1/a.optc.onnx"),
        ("out/{name}.{target}.onnx", "out/a.onnx"),
        ("x/{name}.{target}.onnx", "x/a.optc.onnx"),
    ],
)
def test_an_output_is_a_file_where_it_looks_like_one(output: str, place: str, tmp_path: Path) -> None:
    read = config(tmp_path, f'[[model]]\npath = "x/a.onnx"\noutput = "{output}"\n')
    assert read.entries[0].artifact("onnx") == str(tmp_path / place)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="optc init"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="UTF-8"):
        load(str(tmp_path / "b.toml"))


def test_the_command_line_wins(tmp_path: Path) -> None:
    save(zoo.load("digits_dscnn"), tmp_path / "a.onnx")
    config(tmp_path, '[[model]]\npath = "a.onnx"\npasses = "clean"\nseed = 3\noutput = "b.onnx"\n')
    model = str(tmp_path / "a.onnx")
    chosen = choose(model, None, {"seed": 7}, ["x*"])
    assert chosen.options == Options(passes="clean", seed=7, overrides=(Override("x*", keep=True),))
    assert chosen.output == str(tmp_path / "b.onnx")
    assert chosen.config == str(tmp_path / "optc.toml")
    assert choose(model, None, {"output": "c.onnx"}, ()).output == "c.onnx"
    assert choose("zoo:digits_dscnn", None, {}, ()).options == Options()


def test_an_entry_may_be_named(tmp_path: Path) -> None:
    text = '[[model]]\npath = "zoo:digits_dscnn"\nname = "d"\nseed = 3\ntargets = ["onnx", "onnx:cpu=arm"]\n'
    read = config(tmp_path, text)
    chosen = choose("d", read.path, {"target": "onnx:cpu=arm"}, ())
    assert (chosen.model, chosen.options.seed, chosen.target) == ("zoo:digits_dscnn", 3, "onnx:cpu=arm")
    with pytest.raises(SpecError, match="choose one with --target"):
        choose("d", read.path, {}, ())
    with pytest.raises(SpecError, match="Did you mean 'd'"):
        choose("dd", read.path, {}, ())


@pytest.mark.parametrize("name", ["digits_dscnn", "digits_transformer"])
def test_what_init_writes_is_read_back(name: str, tmp_path: Path) -> None:
    model = tmp_path / "my model.onnx"
    save(zoo.load(name), model)
    text = init.text(str(model), read(str(model)), str(tmp_path))
    parsed = config(tmp_path, text)
    assert parsed.entries[0].path == str(model)
    assert parsed.entries[0].options == Options()
    # Every key that is offered as a comment is one that is known.
    offered = [line[2:] for line in text.splitlines() if line.startswith("# ") and " = " in line and "`" not in line]
    keys = [line for line in offered if line.split(" = ")[0].replace("-", "").isalnum()]
    assert len(keys) >= 12
    top = [line for line in keys if not line.startswith(("match", "keep", "op ", "passes = { "))]
    config(tmp_path, f'[[model]]\npath = "{model}"\n' + "\n".join(top))
    with pytest.raises(OutputError, match=r"builds .* already"):
        init.write(str(tmp_path / "optc.toml"), init.text(str(model), read(str(model)), str(tmp_path)), str(model))


def test_init_appends_a_second_model_and_leaves_the_first_alone(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.onnx", "b.onnx")]
    for path in paths:
        save(zoo.load("digits_dscnn"), path)
        init.write(str(tmp_path / "optc.toml"), init.text(path, read(path), str(tmp_path)), path)
    text = (tmp_path / "optc.toml").read_text()
    assert [entry.path for entry in load(str(tmp_path / "optc.toml")).entries] == paths
    assert text.count("# What `optc build` makes of this model") == 1
    (tmp_path / "c").mkdir()
    save(zoo.load("digits_dscnn"), tmp_path / "c" / "a.onnx")
    path = str(tmp_path / "c" / "a.onnx")
    third = init.text(path, read(path), str(tmp_path))
    with pytest.raises(SpecError, match="two models are called 'a'"):
        init.write(str(tmp_path / "optc.toml"), third, path)
    assert (tmp_path / "optc.toml").read_text() == text
