"""What the kernels compute, as tensor expressions that their schedules know how to cut."""
