"""Schedule rules: how each kind of kernel is cut for a CPU's caches, registers and cores."""
