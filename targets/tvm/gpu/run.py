"""Running an OpenCL artifact in this process, on whatever device the drivers here offer."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from typing import ClassVar

from ....errors import TargetError
from ....storage.workspace import Workspace
from ..artifact import folder as artifact
from ..artifact import manifest
from ..artifact.run import Library
from .build import link
from .device import DEVICES

_LIBRARIES = ("libOpenCL.so.1", "libOpenCL.so")
_PACKAGES = "ocl-icd-libopencl1 pocl-opencl-icd"


def require_driver() -> None:
    """Raises `TargetError` naming the packages where no OpenCL device is here."""
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_uint32(0)
        if library.clGetPlatformIDs(0, None, ctypes.byref(count)) == 0 and count.value:
            return
    raise TargetError(f"OpenCL kernels cannot run here without a driver; install the packages {_PACKAGES}")


class OpenClLibrary(Library):
    """An artifact whose kernels run here. Where its library is for another CPU, one for this is built from its files.

    Times are those of the device that is found, which need not be of the kind that was built for.
    """

    emulated: ClassVar[bool] = True

    def __init__(self, path: str, *, threads: int = 0) -> None:
        require_driver()
        self.threads = threads or 1
        # The library reads the kernels and the weights that stand beside it.
        self._folder = Workspace()
        here = self._folder.name
        if os.path.isdir(path):
            shutil.copytree(path, here, dirs_exist_ok=True)
        else:
            artifact.unpack(path, here)
        document = manifest.read(here, path)
        self.inputs, self.outputs = manifest.ports(document["inputs"]), manifest.ports(document["outputs"])
        library = os.path.join(here, "model.so")
        triple = document["machine"]["triple"]
        if triple and triple.split("-")[0] != platform.machine():
            link(DEVICES["generic"], here, library)
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            said = str(error).replace(here, path)
            raise TargetError(f"{path} was built for {document['target']} and does not load here: {said}") from error
        self._library.optc_open.restype = ctypes.c_void_p
        self._library.optc_error.restype = ctypes.c_char_p
        opened = self._library.optc_open(threads)
        if not opened:
            said = " ".join(self._library.optc_error().decode(errors="replace").split())
            raise TargetError(f"{path} cannot run here: {said}")
        self._model = ctypes.c_void_p(opened)
