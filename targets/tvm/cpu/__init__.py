"""CPUs: what they can do, how loops are cut for them, and the tools that build for them."""
