"""TVM, loaded in half of the time that its own import takes.

Each of the fifty modules that bind functions of its C++ library asks for the names of all of them, two thousand, one
call a name: they are asked for once, and again where there are more. Its distributed runtime is looked for in a library
that its wheel does not load; that it is missing is an error of C++, whose first backtrace reads the debugging
information of the whole compiler (a third of all that loading takes), and so it is not looked for. Its own tuning,
which nothing here asks for, is loaded where something does. And Python's collector looks over what is being loaded
again and again, though nothing of it is to be given back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

from ...errors import TargetError
from ...ir.uncollected import uncollected

_PINNED = "0.27"
_NAMES = "ffi.FunctionListGlobalNamesFunctor"
_LIST = "list_global_func_names"
_OPTIONAL = "tvm.runtime.disco"
"""What TVM goes without where it is not there."""
_LATER = "tvm.s_tir.meta_schedule"
"""A fifth of TVM's modules, whose first use loads them."""


def find() -> None:
    """Raises `TargetError` with the way to install it where TVM is missing or of another series; does not load it."""
    from importlib.util import find_spec

    if find_spec("tvm") is None or find_spec("tvm_ffi") is None:
        raise TargetError("this target needs Apache TVM: pip install 'optc[tvm]'")
    from importlib.metadata import version

    if not version("apache-tvm").startswith(_PINNED):
        raise TargetError(f"this target needs Apache TVM {_PINNED}: pip install 'optc[tvm]'")


def require() -> None:
    """Load TVM. Raises `TargetError` as `find` does."""
    find()
    load()


def load() -> None:
    """Import TVM, where it is not imported yet, and let an interrupt come through it.

    TVM calls back into Python, and hands on an exception by its name: one that it does not know would come out of it
    as an error of TVM's, as if it were the model's fault.
    """
    if "tvm" not in sys.modules:
        with uncollected(), _listed_once(), _without(_OPTIONAL), _later(_LATER):
            import_module("tvm")
    import_module("tvm_ffi").register_error("KeyboardInterrupt", KeyboardInterrupt)


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Within, a module that is not imported yet is missing."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


class _Later(MetaPathFinder):
    """Finds one module, to be loaded where an attribute of it is first asked for."""

    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == self._module else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


@contextmanager
def _later(module: str) -> Iterator[None]:
    """Within, an import of the module is put off to its first use."""
    finder = _Later(module)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def _listed_once() -> Iterator[None]:
    """Within, the names of functions are listed anew where their number has changed; as ever, in other releases."""
    registry = import_module("tvm_ffi.registry")
    original: Callable[[], list[str]] | None = getattr(registry, _LIST, None)
    list_of = registry.get_global_func(_NAMES, allow_missing=True)
    if original is None or list_of is None:
        yield
        return
    names: list[str] = []

    def listed() -> list[str]:
        functor = list_of()
        count = functor(-1)
        if count != len(names):
            names[:] = [functor(index) for index in range(count)]
        return list(names)

    setattr(registry, _LIST, listed)
    try:
        yield
    finally:
        setattr(registry, _LIST, original)
