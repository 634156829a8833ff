"""The command line: one file a command, and `app`, which runs them."""
