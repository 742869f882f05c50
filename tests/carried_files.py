"""Files as `edgewright bundle export` writes them, of an artifact's folder, without a controller."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from edgewright_contract import block_index, bundle, carried, digest
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import operator_pb2
from edgewright_controller import carrying

RELEASE = "ab" * 32


def parts(
    files: Path,
    index_data: bytes,
    *,
    fleet: str = "demo",
    release: str = RELEASE,
    base: str = "",
    without: Collection[bytes] = (),
    piece: int = 100_000,
) -> list[operator_pb2.ExportPart]:
    """What a controller sends of this artifact; blocks with a digest in `without` are in `base`."""
    listed = bundle.from_folder(files)
    index = block_index.parse(index_data, listed)
    there = [block for block in index.blocks if block.sha256 not in without]
    whole = {file.path: (files / file.path).read_bytes() for file in listed.files}
    content = b"".join(whole[block.path][block.offset : block.offset + block.size] for block in there)
    head = operator_pb2.ExportHead(
        fleet=fleet,
        release=release,
        artifact=listed.digest,
        block_index=digest.of_bytes(index_data),
        base=base,
        bundle_bytes=len(listed.encode()),
        index_bytes=len(index_data),
        blocks=len(index.blocks),
        content_bytes=len(content),
    )
    bits = carried.bits_of((block.index for block in there), len(index.blocks))
    stream = listed.encode() + index_data + bits + content
    return [
        operator_pb2.ExportPart(head=head),
        *(operator_pb2.ExportPart(data=stream[at : at + piece]) for at in range(0, len(stream), piece)),
    ]


def target_of(files: Path, index_data: bytes) -> ImageTarget:
    """What would be signed of this artifact."""
    listed = bundle.from_folder(files)
    return ImageTarget(
        kind="model",
        name="smollm2",
        hw_class="gguf-cpu",
        runtime="gguf",
        bundle=listed.digest,
        bundle_length=len(listed.encode()),
        block_index=digest.of_bytes(index_data),
        block_index_length=len(index_data),
    )


def written(
    out: Path, files: Path, mandate: bytes = b"", *, device: str = "jetson-01", profile: str = "", **how: Any
) -> Path:
    """The file, for a device or for a profile."""
    index_data = block_index.cut(bundle.from_folder(files), files)
    coming = parts(files, index_data, **how)
    carrying.write(out, coming, mandate, device="" if profile else device, profile=profile)
    return out
