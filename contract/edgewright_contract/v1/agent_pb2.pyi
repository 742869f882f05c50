from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Step(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_UNSPECIFIED: _ClassVar[Step]
    STEP_IDLE: _ClassVar[Step]
    STEP_PLANNING: _ClassVar[Step]
    STEP_DOWNLOADING: _ClassVar[Step]
    STEP_VERIFYING: _ClassVar[Step]
    STEP_STARTING: _ClassVar[Step]
    STEP_PROVING: _ClassVar[Step]
    STEP_PROBING: _ClassVar[Step]
    STEP_SWITCHING: _ClassVar[Step]
    STEP_DRAINING: _ClassVar[Step]
    STEP_REVERTING: _ClassVar[Step]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_IN_PROGRESS: _ClassVar[Outcome]
    OUTCOME_SUCCEEDED: _ClassVar[Outcome]
    OUTCOME_FAILED: _ClassVar[Outcome]
    OUTCOME_HELD: _ClassVar[Outcome]

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    ERROR_CODE_METADATA_REFUSED: _ClassVar[ErrorCode]
    ERROR_CODE_METADATA_STALE: _ClassVar[ErrorCode]
    ERROR_CODE_DISK_FULL: _ClassVar[ErrorCode]
    ERROR_CODE_MEMORY_SHORT: _ClassVar[ErrorCode]
    ERROR_CODE_DOWNLOAD_FAILED: _ClassVar[ErrorCode]
    ERROR_CODE_ARTIFACT_CORRUPT: _ClassVar[ErrorCode]
    ERROR_CODE_ARTIFACT_UNSAFE: _ClassVar[ErrorCode]
    ERROR_CODE_ENGINE_MISSING: _ClassVar[ErrorCode]
    ERROR_CODE_ENGINE_FAILED: _ClassVar[ErrorCode]
    ERROR_CODE_ACCELERATOR_WRONG: _ClassVar[ErrorCode]
    ERROR_CODE_PROBE_FAILED: _ClassVar[ErrorCode]
    ERROR_CODE_DEADLINE: _ClassVar[ErrorCode]
    ERROR_CODE_CANCELLED: _ClassVar[ErrorCode]
    ERROR_CODE_INTERNAL: _ClassVar[ErrorCode]

class Repository(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPOSITORY_UNSPECIFIED: _ClassVar[Repository]
    REPOSITORY_IMAGE: _ClassVar[Repository]
    REPOSITORY_DIRECTOR: _ClassVar[Repository]

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_RAW: _ClassVar[Encoding]
    ENCODING_ZSTD: _ClassVar[Encoding]
    ENCODING_DICT_ZSTD: _ClassVar[Encoding]
    ENCODING_SUB_ZSTD: _ClassVar[Encoding]
STEP_UNSPECIFIED: Step
STEP_IDLE: Step
STEP_PLANNING: Step
STEP_DOWNLOADING: Step
STEP_VERIFYING: Step
STEP_STARTING: Step
STEP_PROVING: Step
STEP_PROBING: Step
STEP_SWITCHING: Step
STEP_DRAINING: Step
STEP_REVERTING: Step
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_IN_PROGRESS: Outcome
OUTCOME_SUCCEEDED: Outcome
OUTCOME_FAILED: Outcome
OUTCOME_HELD: Outcome
ERROR_CODE_UNSPECIFIED: ErrorCode
ERROR_CODE_METADATA_REFUSED: ErrorCode
ERROR_CODE_METADATA_STALE: ErrorCode
ERROR_CODE_DISK_FULL: ErrorCode
ERROR_CODE_MEMORY_SHORT: ErrorCode
ERROR_CODE_DOWNLOAD_FAILED: ErrorCode
ERROR_CODE_ARTIFACT_CORRUPT: ErrorCode
ERROR_CODE_ARTIFACT_UNSAFE: ErrorCode
ERROR_CODE_ENGINE_MISSING: ErrorCode
ERROR_CODE_ENGINE_FAILED: ErrorCode
ERROR_CODE_ACCELERATOR_WRONG: ErrorCode
ERROR_CODE_PROBE_FAILED: ErrorCode
ERROR_CODE_DEADLINE: ErrorCode
ERROR_CODE_CANCELLED: ErrorCode
ERROR_CODE_INTERNAL: ErrorCode
REPOSITORY_UNSPECIFIED: Repository
REPOSITORY_IMAGE: Repository
REPOSITORY_DIRECTOR: Repository
ENCODING_UNSPECIFIED: Encoding
ENCODING_RAW: Encoding
ENCODING_ZSTD: Encoding
ENCODING_DICT_ZSTD: Encoding
ENCODING_SUB_ZSTD: Encoding

class DeviceStatus(_message.Message):
    __slots__ = ("generation", "release", "step", "outcome", "error", "reason", "done_bytes", "total_bytes", "active_release", "active_artifact", "previous_release", "held_releases", "sequence", "engine", "accelerator", "endpoint", "started_unix_ms", "active_model", "unconfined", "damaged", "downloads_paused", "bytes_per_s", "remaining_s")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_RELEASE_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_RELEASE_FIELD_NUMBER: _ClassVar[int]
    HELD_RELEASES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_MODEL_FIELD_NUMBER: _ClassVar[int]
    UNCONFINED_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    DOWNLOADS_PAUSED_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    REMAINING_S_FIELD_NUMBER: _ClassVar[int]
    generation: int
    release: str
    step: Step
    outcome: Outcome
    error: ErrorCode
    reason: str
    done_bytes: int
    total_bytes: int
    active_release: str
    active_artifact: str
    previous_release: str
    held_releases: _containers.RepeatedScalarFieldContainer[str]
    sequence: int
    engine: str
    accelerator: str
    endpoint: str
    started_unix_ms: int
    active_model: str
    unconfined: _containers.RepeatedScalarFieldContainer[str]
    damaged: _containers.RepeatedScalarFieldContainer[str]
    downloads_paused: bool
    bytes_per_s: int
    remaining_s: int
    def __init__(self, generation: _Optional[int] = ..., release: _Optional[str] = ..., step: _Optional[_Union[Step, str]] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., error: _Optional[_Union[ErrorCode, str]] = ..., reason: _Optional[str] = ..., done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., active_release: _Optional[str] = ..., active_artifact: _Optional[str] = ..., previous_release: _Optional[str] = ..., held_releases: _Optional[_Iterable[str]] = ..., sequence: _Optional[int] = ..., engine: _Optional[str] = ..., accelerator: _Optional[str] = ..., endpoint: _Optional[str] = ..., started_unix_ms: _Optional[int] = ..., active_model: _Optional[str] = ..., unconfined: _Optional[_Iterable[str]] = ..., damaged: _Optional[_Iterable[str]] = ..., downloads_paused: _Optional[bool] = ..., bytes_per_s: _Optional[int] = ..., remaining_s: _Optional[int] = ...) -> None: ...

class Inventory(_message.Message):
    __slots__ = ("os", "cpu", "cores", "memory_bytes", "disk_total_bytes", "disk_free_bytes", "accelerators", "runtimes", "agent_version", "python_version")
    OS_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCELERATORS_FIELD_NUMBER: _ClassVar[int]
    RUNTIMES_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    os: str
    cpu: str
    cores: int
    memory_bytes: int
    disk_total_bytes: int
    disk_free_bytes: int
    accelerators: _containers.RepeatedCompositeFieldContainer[Accelerator]
    runtimes: _containers.RepeatedScalarFieldContainer[str]
    agent_version: str
    python_version: str
    def __init__(self, os: _Optional[str] = ..., cpu: _Optional[str] = ..., cores: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., disk_total_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., accelerators: _Optional[_Iterable[_Union[Accelerator, _Mapping]]] = ..., runtimes: _Optional[_Iterable[str]] = ..., agent_version: _Optional[str] = ..., python_version: _Optional[str] = ...) -> None: ...

class Accelerator(_message.Message):
    __slots__ = ("kind", "name", "memory_bytes")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    memory_bytes: int
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class HeldMetadata(_message.Message):
    __slots__ = ("repository", "role", "version")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    role: str
    version: int
    def __init__(self, repository: _Optional[_Union[Repository, str]] = ..., role: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class MetadataFile(_message.Message):
    __slots__ = ("repository", "name", "content")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    name: str
    content: bytes
    def __init__(self, repository: _Optional[_Union[Repository, str]] = ..., name: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class CheckInRequest(_message.Message):
    __slots__ = ("status", "inventory", "inventory_digest", "held", "spool_epoch", "results", "spool_settled")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SPOOL_EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    SPOOL_SETTLED_FIELD_NUMBER: _ClassVar[int]
    status: DeviceStatus
    inventory: Inventory
    inventory_digest: str
    held: _containers.RepeatedCompositeFieldContainer[HeldMetadata]
    spool_epoch: bytes
    results: _containers.RepeatedCompositeFieldContainer[RequestResult]
    spool_settled: int
    def __init__(self, status: _Optional[_Union[DeviceStatus, _Mapping]] = ..., inventory: _Optional[_Union[Inventory, _Mapping]] = ..., inventory_digest: _Optional[str] = ..., held: _Optional[_Iterable[_Union[HeldMetadata, _Mapping]]] = ..., spool_epoch: _Optional[bytes] = ..., results: _Optional[_Iterable[_Union[RequestResult, _Mapping]]] = ..., spool_settled: _Optional[int] = ...) -> None: ...

class DeviceRequest(_message.Message):
    __slots__ = ("id", "kind", "argument")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[DeviceRequest.Kind]
        KIND_PROBE_NOW: _ClassVar[DeviceRequest.Kind]
        KIND_SEND_LOGS: _ClassVar[DeviceRequest.Kind]
        KIND_PAUSE_DOWNLOADS: _ClassVar[DeviceRequest.Kind]
        KIND_RESUME_DOWNLOADS: _ClassVar[DeviceRequest.Kind]
        KIND_REBIRTH: _ClassVar[DeviceRequest.Kind]
        KIND_RELEASE_HOLD: _ClassVar[DeviceRequest.Kind]
    KIND_UNSPECIFIED: DeviceRequest.Kind
    KIND_PROBE_NOW: DeviceRequest.Kind
    KIND_SEND_LOGS: DeviceRequest.Kind
    KIND_PAUSE_DOWNLOADS: DeviceRequest.Kind
    KIND_RESUME_DOWNLOADS: DeviceRequest.Kind
    KIND_REBIRTH: DeviceRequest.Kind
    KIND_RELEASE_HOLD: DeviceRequest.Kind
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: DeviceRequest.Kind
    argument: str
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[_Union[DeviceRequest.Kind, str]] = ..., argument: _Optional[str] = ...) -> None: ...

class RequestResult(_message.Message):
    __slots__ = ("id", "succeeded", "detail")
    ID_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    id: str
    succeeded: bool
    detail: str
    def __init__(self, id: _Optional[str] = ..., succeeded: _Optional[bool] = ..., detail: _Optional[str] = ...) -> None: ...

class CheckInResponse(_message.Message):
    __slots__ = ("metadata", "requests", "stored_sequence", "next_check_in_s", "server_unix_ms", "inventory_wanted", "generation")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    STORED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NEXT_CHECK_IN_S_FIELD_NUMBER: _ClassVar[int]
    SERVER_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_WANTED_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    metadata: _containers.RepeatedCompositeFieldContainer[MetadataFile]
    requests: _containers.RepeatedCompositeFieldContainer[DeviceRequest]
    stored_sequence: int
    next_check_in_s: int
    server_unix_ms: int
    inventory_wanted: bool
    generation: int
    def __init__(self, metadata: _Optional[_Iterable[_Union[MetadataFile, _Mapping]]] = ..., requests: _Optional[_Iterable[_Union[DeviceRequest, _Mapping]]] = ..., stored_sequence: _Optional[int] = ..., next_check_in_s: _Optional[int] = ..., server_unix_ms: _Optional[int] = ..., inventory_wanted: _Optional[bool] = ..., generation: _Optional[int] = ...) -> None: ...

class FetchObjectRequest(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class ObjectPart(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class BlockRange(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class BlockBase(_message.Message):
    __slots__ = ("bundle", "file", "offset", "size")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    bundle: int
    file: int
    offset: int
    size: int
    def __init__(self, bundle: _Optional[int] = ..., file: _Optional[int] = ..., offset: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class FetchBlocksRequest(_message.Message):
    __slots__ = ("bundle", "block_index", "ranges", "accepted", "max_bytes", "bases")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_INDEX_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    BASES_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    block_index: str
    ranges: _containers.RepeatedCompositeFieldContainer[BlockRange]
    accepted: _containers.RepeatedScalarFieldContainer[Encoding]
    max_bytes: int
    bases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, bundle: _Optional[str] = ..., block_index: _Optional[str] = ..., ranges: _Optional[_Iterable[_Union[BlockRange, _Mapping]]] = ..., accepted: _Optional[_Iterable[_Union[Encoding, str]]] = ..., max_bytes: _Optional[int] = ..., bases: _Optional[_Iterable[str]] = ...) -> None: ...

class BlockPart(_message.Message):
    __slots__ = ("index", "encoding", "data", "encoded_size", "base")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ENCODED_SIZE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    index: int
    encoding: Encoding
    data: bytes
    encoded_size: int
    base: BlockBase
    def __init__(self, index: _Optional[int] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., data: _Optional[bytes] = ..., encoded_size: _Optional[int] = ..., base: _Optional[_Union[BlockBase, _Mapping]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_der",)
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    csr_der: bytes
    def __init__(self, csr_der: _Optional[bytes] = ...) -> None: ...

class RenewResponse(_message.Message):
    __slots__ = ("certificate_chain_pem", "enrolment_address")
    CERTIFICATE_CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    ENROLMENT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    certificate_chain_pem: bytes
    enrolment_address: str
    def __init__(self, certificate_chain_pem: _Optional[bytes] = ..., enrolment_address: _Optional[str] = ...) -> None: ...
