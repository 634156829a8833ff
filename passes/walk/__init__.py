"""The engine of lossy passes: layer by layer, each fitted to what the teacher answers."""
