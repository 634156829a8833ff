"""Operators that are given kernels of our own, a family a file: what TVM's converter lacks or answers wrongly."""
