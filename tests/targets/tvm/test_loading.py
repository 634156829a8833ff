"""TVM loaded in less time than its own import takes: what it binds is the same, and nothing of it stays changed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'optc[tvm]'")

_BOUND = """
import gc, json, sys
import tvm_ffi.registry as registry
original = registry.list_global_func_names
{load}
assert gc.isenabled()
assert registry.list_global_func_names is original
modules = [name for name in sys.modules if name.startswith(("tvm.", "tvm_ffi.")) and name.endswith("_ffi_api")]
bound = {{name: sorted(vars(sys.modules[name])) for name in sorted(modules)}}
print(json.dumps([bound, sorted(name for name in sys.modules if name.startswith("tvm")), sorted(original())]))
"""

_LOADED = "import optc.targets.tvm.loading as loading; loading.load(); import tvm"


def _bound(load: str) -> list[dict[str, list[str]] | list[str]]:
    code = _BOUND.format(load=load)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    bound: list[dict[str, list[str]] | list[str]] = json.loads(done.stdout)
    assert isinstance(bound, list)
    return bound


def test_what_is_bound_is_what_its_own_import_binds() -> None:
    plain = _bound("import os; os.environ['TVM_DEVICE_BACKEND_AUTOLOAD'] = '0'; import tvm")
    ours = _bound(_LOADED + "; assert tvm.s_tir.meta_schedule.TuneContext")
    for one, other in zip(plain, ours, strict=True):
        lacking = [name for name in one if name not in other]
        assert [name for name in lacking if "runtime.disco" not in name] == []
        if isinstance(one, dict):
            assert {name: one[name] for name in one.keys() & other.keys()} == other
    assert len(plain[0]) > 30


def test_the_tuning_of_tvm_is_loaded_where_it_is_used() -> None:
    """Its modules are a fifth of all."""
    _, modules, _ = _bound(_LOADED)
    _, used, _ = _bound(_LOADED + "; tvm.s_tir.meta_schedule.TuneContext")
    assert len(modules) < 0.9 * len(used)
    assert set(modules) < set(used)


def test_no_error_is_made_on_the_way() -> None:
    """The first error of TVM's C++ reads the debugging information of all that is loaded, for its backtrace."""
    code = """
from tvm_ffi import core
find, absent = core._object_type_key_to_index, []
def looked_up(key):
    index = find(key)
    if index is None:
        absent.append(key)
    return index
core._object_type_key_to_index = looked_up
from optc.targets.tvm.loading import load
load()
import tvm, sys
assert tvm.runtime.disco is None
assert "tvm.runtime.disco" not in sys.modules
print(absent)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_are_listed_a_few_times_alone() -> None:
    """As often as Python adds functions between; the import lists them for every module that binds some."""
    code = """
import tvm_ffi.registry as registry
from optc.targets.tvm import loading
count = [0, 0]
get = registry.get_global_func
def counted(name, allow_missing=False):
    function = get(name, allow_missing)
    if name != "ffi.FunctionListGlobalNamesFunctor":
        return function
    def make():
        functor = function()
        count[0] += 1
        def call(index):
            count[1] += 1
            return functor(index)
        return call
    return make
registry.get_global_func = counted
loading.load()
print(*count)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lists, calls = map(int, done.stdout.split())
    assert lists > 30
    assert calls < 20 * 2500
