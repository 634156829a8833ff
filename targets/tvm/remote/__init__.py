"""Artifacts run on a device over TVM's RPC."""
