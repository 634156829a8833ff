"""Trained weights for the architectures of the zoo, read from the files that other frameworks write."""
