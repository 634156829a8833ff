"""Files and folders: whole or not at all, known by their content, gone with the process. It knows nothing of models."""
