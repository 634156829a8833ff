"""The artifact: its plan, its code, its files, and running it."""
