"""Edits of a graph's structure, the one after the other that lose least for what they save, and the repair after."""
