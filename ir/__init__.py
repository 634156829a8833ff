"""The graph IR: it knows no pass, no target, no runtime."""
