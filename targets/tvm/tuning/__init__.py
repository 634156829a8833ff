"""Tuning: kernels timed one by one, cut in other ways than the machine's facts speak for."""
