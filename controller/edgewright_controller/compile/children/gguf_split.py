"""GGUF file → the same model in several files, of at most so many bytes of weights each: llama.cpp loads the first.

What a file is called, and that the first has all of the metadata, is llama.cpp's convention.

Request: {"source": file, "out": file NAME.gguf, "bytes": the most of one part}
Result: {"files": [NAME-00001-of-00003.gguf, …]}, of one file only if it is small enough
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from stage import Say, run


def split(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "splitting")
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, Keys

    reader = GGUFReader(request["source"])
    architecture = reader.get_field(Keys.General.ARCHITECTURE)
    out = Path(request["out"])
    writer = GGUFWriter(out, architecture.contents() if architecture else "", split_max_size=request["bytes"])
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == Keys.General.ARCHITECTURE:
            continue  # the writer writes these
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor_info(
            tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, tensor.tensor_type
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, tensor in enumerate(reader.tensors, 1):
        writer.write_tensor_data(tensor.data)
        say(number / len(reader.tensors), tensor.name)
    writer.close()
    return {"files": sorted(path.name for path in out.parent.glob(f"{out.stem}*.gguf"))}


if __name__ == "__main__":
    sys.exit(run(split))
