from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class MandateFile(_message.Message):
    __slots__ = ("format", "mandate", "roots", "targets", "builder")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    MANDATE_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    BUILDER_FIELD_NUMBER: _ClassVar[int]
    format: int
    mandate: bytes
    roots: _containers.RepeatedScalarFieldContainer[bytes]
    targets: bytes
    builder: bytes
    def __init__(self, format: _Optional[int] = ..., mandate: _Optional[bytes] = ..., roots: _Optional[_Iterable[bytes]] = ..., targets: _Optional[bytes] = ..., builder: _Optional[bytes] = ...) -> None: ...
