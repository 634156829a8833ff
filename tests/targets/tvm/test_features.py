"""The names of features, of every CPU that LLVM knows and that is in use, as LLVM and as Linux spell them."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("tvm", reason="needs Apache TVM")

from optc.compiler import read
from optc.errors import TargetError
from optc.runtime import cpu
from optc.targets import table
from optc.targets.tvm.artifact import run
from optc.targets.tvm.cpu import features, machines
from optc.targets.tvm.cpu.machine import PMADDWD, VPDPBUSD

X86_CPUS = """
    x86-64 x86-64-v2 x86-64-v3 x86-64-v4 nehalem sandybridge ivybridge haswell broadwell skylake skylake-avx512
    cascadelake cooperlake cannonlake icelake-client icelake-server tigerlake rocketlake alderlake raptorlake meteorlake
    arrowlake lunarlake pantherlake sapphirerapids emeraldrapids graniterapids sierraforest grandridge gracemont
    clearwaterforest diamondrapids goldmont tremont knl bdver4 znver1 znver2 znver3 znver4 znver5
"""
ARM64_CPUS = """
    generic cortex-a35 cortex-a53 cortex-a55 cortex-a57 cortex-a72 cortex-a73 cortex-a75 cortex-a76 cortex-a77
    cortex-a78 cortex-a510 cortex-a520 cortex-a710 cortex-a715 cortex-a720 cortex-x1 cortex-x2 cortex-x3 cortex-x4
    cortex-x925 neoverse-n1 neoverse-n2 neoverse-n3 neoverse-v1 neoverse-v2 neoverse-v3 apple-m1 apple-m4 oryon-1
    ampere1 a64fx grace
"""
ARM32_CPUS = "cortex-a5 cortex-a7 cortex-a8 cortex-a9 cortex-a15 cortex-a17 cortex-a53 cortex-a72 krait"

X86_OTHERS = re.compile(
    r"64bit|64bit-mode|cx8|cmov|mmx|fxsr|sse2?|x87|nopl"  # every CPU of 64 bits has it
    r"|(fast|faster|slow|prefer|false-deps|no-bypass|tuning|use|branch|idivq|sbb|allow|macrofusion|vzeroupper|ermsb).*"
    # What is used only where a program names it.
    r"|adx|aes|amx-.*|cldemote|clflushopt|clwb|clzero|crc32|enqcmd|fsgsbase|fsrm|hreset|invpcid|kl|lwp|movdir64b|movdiri"
    r"|movrs|mwaitx|pclmul|pconfig|pku|prefetchi|prfchw|ptwrite|rdpid|rdpru|rdrnd|rdseed|serialize|sha(512)?|shstk|sm[34]"
    r"|tsxldtrk|uintr|usermsr|vaes|vpclmulqdq|waitpkg|wbnoinvd|widekl|xsave.*"
)
ARM64_OTHERS = re.compile(
    # What is used only where a program names it, levels, what only an operating system uses, and advice.
    r"aes|bti|ccdp|ccpp|crc|dit|ls64|mte|pauth|rand|sb|sha[23]|sm4|ssbs|sve-(aes|sha3|sm4)|wfxt|"
    r"v[89](\.\d)?a|tracev8\.4|CONTEXTIDREL2|am|amvs|brbe|ccidx|ecv|el2vmsa|el3|ete|fgt|fpac|hcx|lor|mpam|nv|pan"
    r"|pan-rwv|perfmon|predres|ras|rme|sel2|spe|spe-eef|specrestrict|tlb-rmi|trbe|vh|xs|uaops"
    r"|(addr|aggressive|alternate|alu|arith|avoid|balance|cmp|disable|enable|fuse|ldp|max|no|predictable|store|stp|use"
    r"|zcm|zcz)-.*|a\d+|a64fx|ampere1|apple-.*|cortex-.*|neoverse.*|oryon-1|cmp-.*"
)
ARM32_OTHERS = re.compile(
    # Of the levels of the architecture, parts of a feature that is named, what only an operating system uses, advice.
    r"aes|crc|crypto|sha2|v\d.*|armv\d-a|aclass|acquire-release|db|dsp|mp|perfmon|thumb2|trustzone|virtualization|fpregs(64)?|fp64"
    r"|vfp\d(d16)?(sp)?|fp-armv8(d16)?(sp)?|a\d+|krait"
    r"|(avoid|dont|expand|fix|fpao|muxed|neon|nonpipelined|prefer|ret|slow|slowfp|splat|vldn|vmlx).*"
)


@pytest.mark.parametrize(
    ("triple", "cpus", "others"),
    [
        ("x86_64-linux-gnu", X86_CPUS, X86_OTHERS),
        ("aarch64-linux-gnu", ARM64_CPUS, ARM64_OTHERS),
        ("armv7a-unknown-linux-gnueabihf", ARM32_CPUS, ARM32_OTHERS),
    ],
    ids=["x86", "arm64", "arm32"],
)
def test_every_feature_of_the_cpus_in_use_has_a_name_or_needs_none(
    triple: str, cpus: str, others: re.Pattern[str]
) -> None:
    from tvm.target import codegen

    table = features.names(triple)
    for name in cpus.split():
        assert codegen.llvm_is_valid_cpu(name, triple), name
        unknown = {one for one in machines.of_llvm(triple, name) if one not in table and not others.fullmatch(one)}
        assert not unknown, f"{name}: {sorted(unknown)}"


def test_names_differ_from_those_of_linux_where_linux_puts_a_line() -> None:
    assert {name for name in features.X86 if "_" in name} == set()
    spelled = {name: linux for name, linux in features.X86.items() if linux.replace("_", "") == name}
    assert spelled["avx512vnni"] == "avx512_vnni"
    assert spelled["avxvnni"] == "avx_vnni"
    # AVX-512 of the first CPUs is spelled without a line by both, of later ones with one by Linux.
    first = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512ifma", "avx512vbmi"}
    later = {name for name in features.X86 if name.startswith("avx512")} - first
    assert all(features.X86[name] == name for name in first)
    assert all(features.X86[name] == name.replace("avx512", "avx512_") for name in later)


SAPPHIRE = frozenset(linux for linux in features.X86.values() if linux)
"""A CPU with all that Linux lists."""


def test_a_library_loads_where_linux_lists_what_llvm_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.cpu, "flags", lambda: SAPPHIRE)
    monkeypatch.setattr(run.cpu, "is_x86", lambda: True)
    for name in X86_CPUS.split():
        used = features.listed(machines.of_llvm("x86_64-linux-gnu", name), "x86_64-linux-gnu")
        run.check_features(used, "x86_64-linux-gnu", "it needs")


@pytest.mark.parametrize("feature", [name for name, linux in features.X86.items() if linux])
def test_a_library_does_not_load_where_a_feature_is_missing(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.cpu, "flags", lambda: SAPPHIRE - {features.X86[feature]})
    with pytest.raises(TargetError, match=re.escape(f"it needs {feature}, which this one lacks")):
        run.check_features(["+avx10.2", feature], "x86_64-linux-gnu", "it needs")


def test_what_is_switched_off_or_listed_nowhere_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.cpu, "flags", lambda: SAPPHIRE - {"avx512f"})
    run.check_features(["-avx512f", "+avx2", "avxvnniint8"], "x86_64-linux-gnu", "it needs")


@pytest.mark.parametrize(
    ("cpu_name", "dot", "lanes"),
    [
        ("x86-64", PMADDWD, 4),
        ("x86-64-v3", PMADDWD, 8),
        ("alderlake", VPDPBUSD, 8),
        ("skylake-avx512", PMADDWD, 16),
        ("cascadelake", VPDPBUSD, 16),
        ("sapphirerapids", VPDPBUSD, 16),
        ("znver4", VPDPBUSD, 16),
    ],
)
def test_a_cpu_is_built_for_with_the_instructions_that_it_has(cpu_name: str, dot: object, lanes: int) -> None:
    machine = machines._machine("x86_64-linux-gnu", cpu_name, frozenset())
    assert (machine.dot, machine.lanes) == (dot, lanes)


def test_a_cpu_under_a_hypervisor_is_built_for_without_what_that_hides() -> None:
    flags = frozenset(
        features.X86[name] for name in features.listed(machines.of_llvm("x86_64-linux-gnu", "haswell"), "x86_64")
    )
    machine = machines._machine("x86_64-linux-gnu", "cascadelake", flags)
    assert (machine.dot, machine.lanes) == (PMADDWD, 8)
    left = machines.of_llvm(machine.triple, machine.cpu, machine.features)
    assert not features.lacking(features.listed(left, machine.triple), machine.triple, flags)


def test_the_manifest_names_all_that_the_library_may_use(tmp_path: Path) -> None:
    (target,) = table.parse("host:cpu=x86-64-v2")
    artifact = target.emit(read("zoo:digits_resnet"), str(tmp_path / "model.tar"))
    with tarfile.open(artifact.path) as tar:
        document = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert {"sse4.2", "ssse3", "popcnt"} <= set(document["machine"]["features"])
    assert not {"avx", "avx2"} & set(document["machine"]["features"])


@pytest.mark.parametrize("level", cpu.LEVELS)
def test_the_variable_bounds_what_this_cpu_has(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(cpu, "_told", lambda: SAPPHIRE)
    monkeypatch.setenv(cpu.VARIABLE, level)
    assert cpu.flags() <= cpu.LEVELS[level]
    assert ("avx2" in cpu.flags()) == (level in ("x86-64-v3", "x86-64-v4"))
    assert ("avx512f" in cpu.flags()) == (level == "x86-64-v4") == (cpu.float_lanes() == 16)
    assert not cpu.has_int8_dot_product()
    named = features.listed(machines.of_llvm("x86_64-linux-gnu", level), "x86_64-linux-gnu")
    assert {features.X86[name] for name in named} <= cpu.LEVELS[level]


def test_a_level_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv(cpu.VARIABLE, "x86-64-v9")
    with pytest.raises(TargetError, match="OPTC_CPU=x86-64-v9 is no level that is known; the levels are x86-64, "):
        cpu.flags()


def test_another_kind_of_cpu_has_no_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.platform, "machine", lambda: "aarch64")
    monkeypatch.setenv(cpu.VARIABLE, "x86-64-v3")
    with pytest.raises(TargetError, match="OPTC_CPU is for x86 CPUs only, and this is aarch64"):
        cpu.flags()
