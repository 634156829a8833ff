"""Targets that Apache TVM generates code for: libraries that need nothing else where they run."""

import os

# Kernels of our own need none of TVM's hooks for GPUs, whose import is a sixth of all of TVM's. Whoever wants them in
# the same process sets the variable to 1.
os.environ.setdefault("TVM_DEVICE_BACKEND_AUTOLOAD", "0")
