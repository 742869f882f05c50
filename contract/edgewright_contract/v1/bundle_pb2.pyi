from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BlockIndex(_message.Message):
    __slots__ = ("format", "bundle_sha256", "files")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_SHA256_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    format: int
    bundle_sha256: bytes
    files: _containers.RepeatedCompositeFieldContainer[FileBlocks]
    def __init__(self, format: _Optional[int] = ..., bundle_sha256: _Optional[bytes] = ..., files: _Optional[_Iterable[_Union[FileBlocks, _Mapping]]] = ...) -> None: ...

class FileBlocks(_message.Message):
    __slots__ = ("sha256s", "sizes")
    SHA256S_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    sha256s: bytes
    sizes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sha256s: _Optional[bytes] = ..., sizes: _Optional[_Iterable[int]] = ...) -> None: ...
