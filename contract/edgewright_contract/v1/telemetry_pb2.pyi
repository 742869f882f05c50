from edgewright_contract.v1 import agent_pb2 as _agent_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Envelope(_message.Message):
    __slots__ = ("schema", "device_id", "spool_epoch", "boot_id", "session", "seq", "wall_ms", "mono_ms", "clock_synced", "dropped_before", "agent_version", "artifact_digest", "generation", "birth", "telemetry", "event", "update", "death")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SPOOL_EPOCH_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    MONO_MS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_SYNCED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BIRTH_FIELD_NUMBER: _ClassVar[int]
    TELEMETRY_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    DEATH_FIELD_NUMBER: _ClassVar[int]
    schema: int
    device_id: str
    spool_epoch: bytes
    boot_id: bytes
    session: int
    seq: int
    wall_ms: int
    mono_ms: int
    clock_synced: bool
    dropped_before: int
    agent_version: str
    artifact_digest: bytes
    generation: int
    birth: Birth
    telemetry: Telemetry
    event: Event
    update: _agent_pb2.DeviceStatus
    death: Death
    def __init__(self, schema: _Optional[int] = ..., device_id: _Optional[str] = ..., spool_epoch: _Optional[bytes] = ..., boot_id: _Optional[bytes] = ..., session: _Optional[int] = ..., seq: _Optional[int] = ..., wall_ms: _Optional[int] = ..., mono_ms: _Optional[int] = ..., clock_synced: _Optional[bool] = ..., dropped_before: _Optional[int] = ..., agent_version: _Optional[str] = ..., artifact_digest: _Optional[bytes] = ..., generation: _Optional[int] = ..., birth: _Optional[_Union[Birth, _Mapping]] = ..., telemetry: _Optional[_Union[Telemetry, _Mapping]] = ..., event: _Optional[_Union[Event, _Mapping]] = ..., update: _Optional[_Union[_agent_pb2.DeviceStatus, _Mapping]] = ..., death: _Optional[_Union[Death, _Mapping]] = ...) -> None: ...

class Birth(_message.Message):
    __slots__ = ("endpoint", "engine", "accelerator", "status")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    engine: str
    accelerator: str
    status: _agent_pb2.DeviceStatus
    def __init__(self, endpoint: _Optional[str] = ..., engine: _Optional[str] = ..., accelerator: _Optional[str] = ..., status: _Optional[_Union[_agent_pb2.DeviceStatus, _Mapping]] = ...) -> None: ...

class Death(_message.Message):
    __slots__ = ("graceful",)
    GRACEFUL_FIELD_NUMBER: _ClassVar[int]
    graceful: bool
    def __init__(self, graceful: _Optional[bool] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("kind", "detail")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Event.Kind]
        KIND_ENGINE_STARTED: _ClassVar[Event.Kind]
        KIND_ENGINE_EXITED: _ClassVar[Event.Kind]
        KIND_ENGINE_RESTARTED: _ClassVar[Event.Kind]
        KIND_ROLLED_BACK: _ClassVar[Event.Kind]
        KIND_DISK_FULL: _ClassVar[Event.Kind]
        KIND_LINK_LOST: _ClassVar[Event.Kind]
        KIND_LINK_BACK: _ClassVar[Event.Kind]
        KIND_PROBE_FAILED: _ClassVar[Event.Kind]
    KIND_UNSPECIFIED: Event.Kind
    KIND_ENGINE_STARTED: Event.Kind
    KIND_ENGINE_EXITED: Event.Kind
    KIND_ENGINE_RESTARTED: Event.Kind
    KIND_ROLLED_BACK: Event.Kind
    KIND_DISK_FULL: Event.Kind
    KIND_LINK_LOST: Event.Kind
    KIND_LINK_BACK: Event.Kind
    KIND_PROBE_FAILED: Event.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    kind: Event.Kind
    detail: str
    def __init__(self, kind: _Optional[_Union[Event.Kind, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("bounds", "counts", "sum")
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    bounds: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    sum: float
    def __init__(self, bounds: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ..., sum: _Optional[float] = ...) -> None: ...

class Telemetry(_message.Message):
    __slots__ = ("window_ms", "requests", "errors", "rejected", "prompt_tokens", "output_tokens", "decode_tokens_per_s", "request_s", "time_to_first_token_s", "active_requests", "engine_rss_bytes", "agent_rss_bytes", "cpu_percent", "memory_available_bytes", "disk_free_bytes", "engine_restarts", "spool_depth", "temperature_c", "model", "unsettled")
    WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DECODE_TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    REQUEST_S_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    AGENT_RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    SPOOL_DEPTH_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UNSETTLED_FIELD_NUMBER: _ClassVar[int]
    window_ms: int
    requests: int
    errors: int
    rejected: int
    prompt_tokens: int
    output_tokens: int
    decode_tokens_per_s: float
    request_s: Histogram
    time_to_first_token_s: Histogram
    active_requests: int
    engine_rss_bytes: int
    agent_rss_bytes: int
    cpu_percent: float
    memory_available_bytes: int
    disk_free_bytes: int
    engine_restarts: int
    spool_depth: int
    temperature_c: float
    model: str
    unsettled: bool
    def __init__(self, window_ms: _Optional[int] = ..., requests: _Optional[int] = ..., errors: _Optional[int] = ..., rejected: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., decode_tokens_per_s: _Optional[float] = ..., request_s: _Optional[_Union[Histogram, _Mapping]] = ..., time_to_first_token_s: _Optional[_Union[Histogram, _Mapping]] = ..., active_requests: _Optional[int] = ..., engine_rss_bytes: _Optional[int] = ..., agent_rss_bytes: _Optional[int] = ..., cpu_percent: _Optional[float] = ..., memory_available_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., engine_restarts: _Optional[int] = ..., spool_depth: _Optional[int] = ..., temperature_c: _Optional[float] = ..., model: _Optional[str] = ..., unsettled: _Optional[bool] = ...) -> None: ...
