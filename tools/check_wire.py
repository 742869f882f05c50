"""Refuse changes of the wire that an agent or controller of an earlier release would not understand.

usage: python tools/check_wire.py [--release VERSION]

Compares protos/ with each descriptor set in protos/released/. A message, field, enum value or RPC that was released
keeps its name, number and type for ever; adding is free. --release saves the current wire under that version.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
RELEASED = PROTOS / "released"

# A fact of the wire: where it stands → what it is. Released facts may never change.
Facts = dict[str, str]


def compile_set(protos: Path) -> bytes:
    """The descriptor set of all .proto files below `protos`, without source positions."""
    with tempfile.TemporaryDirectory() as room:
        out = Path(room, "set.binpb")
        sources = sorted(str(path) for path in protos.rglob("*.proto"))
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"--descriptor_set_out={out}", *sources],
            check=True,
        )
        return out.read_bytes()


def facts(descriptor_set: bytes) -> Facts:
    """Every fact of a descriptor set that the other end depends on."""
    result: Facts = {}
    for file in pb.FileDescriptorSet.FromString(descriptor_set).file:
        for message in file.message_type:
            result.update(_message(f"{file.package}.{message.name}", message))
        for enum in file.enum_type:
            result.update(_enum(f"{file.package}.{enum.name}", enum))
        for service in file.service:
            for method in service.method:
                result[f"{file.package}.{service.name}/{method.name}"] = (
                    f"{'stream ' * method.client_streaming}{method.input_type} → "
                    f"{'stream ' * method.server_streaming}{method.output_type}"
                )
    return result


def _message(name: str, message: pb.DescriptorProto) -> Iterator[tuple[str, str]]:
    for field in message.field:
        shape = f"{field.name}: {field.label} {field.type} {field.type_name}"
        # Moving a field into a oneof changes what a decoder keeps.
        if field.HasField("oneof_index") and not field.proto3_optional:
            shape += f" in {message.oneof_decl[field.oneof_index].name}"
        yield f"{name}#{field.number}", shape
    for inner in message.nested_type:
        yield from _message(f"{name}.{inner.name}", inner)
    for enum in message.enum_type:
        yield from _enum(f"{name}.{enum.name}", enum)


def _enum(name: str, enum: pb.EnumDescriptorProto) -> Iterator[tuple[str, str]]:
    for value in enum.value:
        yield f"{name}={value.number}", value.name


def broken(old: Facts, new: Facts) -> list[str]:
    """What a program built with `old` would misunderstand, a line each."""
    return [
        f"{where}: was {what}, is {new.get(where, 'gone')}" for where, what in old.items() if new.get(where) != what
    ]


def main() -> int:
    current = compile_set(PROTOS)
    if sys.argv[1:2] == ["--release"]:
        RELEASED.mkdir(exist_ok=True)
        (RELEASED / f"{sys.argv[2]}.binpb").write_bytes(current)
        return 0
    count = 0
    for released in sorted(RELEASED.glob("*.binpb")):
        for line in broken(facts(released.read_bytes()), facts(current)):
            print(f"wire: {released.stem}: {line}")
            count += 1
    if not count:
        print("wire: every released message, field and method is still understood")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
