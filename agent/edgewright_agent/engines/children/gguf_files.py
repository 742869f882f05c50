"""Which file of an artifact's folder llama.cpp is to load."""

import os


def model_file(folder):
    """The one GGUF file, or the first of a split one. Raises FileNotFoundError, ValueError."""
    files = sorted(name for name in os.listdir(folder) if name.endswith(".gguf") and not name.startswith("mmproj"))
    if not files:
        raise FileNotFoundError(f"{folder}: no .gguf file in the artifact")
    if len(files) > 1 and "-00001-of-" not in files[0]:
        raise ValueError(f"{folder}: {len(files)} .gguf files, and not the parts of one: {', '.join(files[:5])}")
    return os.path.join(folder, files[0])
