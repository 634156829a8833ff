"""Which channels live and die together, and their removal."""
