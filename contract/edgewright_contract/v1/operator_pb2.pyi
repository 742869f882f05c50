from edgewright_contract.v1 import agent_pb2 as _agent_pb2
from edgewright_contract.v1 import telemetry_pb2 as _telemetry_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PlanRequest(_message.Message):
    __slots__ = ("manifest", "file", "folder", "devices", "groups")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    manifest: str
    file: str
    folder: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, manifest: _Optional[str] = ..., file: _Optional[str] = ..., folder: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., groups: _Optional[_Iterable[str]] = ...) -> None: ...

class PlannedBuild(_message.Message):
    __slots__ = ("build_key", "model", "profiles", "runtime", "quantization", "cached", "estimated_bytes")
    BUILD_KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    build_key: str
    model: str
    profiles: _containers.RepeatedScalarFieldContainer[str]
    runtime: str
    quantization: str
    cached: bool
    estimated_bytes: int
    def __init__(self, build_key: _Optional[str] = ..., model: _Optional[str] = ..., profiles: _Optional[_Iterable[str]] = ..., runtime: _Optional[str] = ..., quantization: _Optional[str] = ..., cached: _Optional[bool] = ..., estimated_bytes: _Optional[int] = ...) -> None: ...

class PlannedChange(_message.Message):
    __slots__ = ("device", "model", "profile", "from_release", "to_release", "kind", "note")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[PlannedChange.Kind]
        KIND_NONE: _ClassVar[PlannedChange.Kind]
        KIND_INSTALL: _ClassVar[PlannedChange.Kind]
        KIND_UPDATE: _ClassVar[PlannedChange.Kind]
        KIND_REMOVE: _ClassVar[PlannedChange.Kind]
        KIND_HELD: _ClassVar[PlannedChange.Kind]
        KIND_UNENROLLED: _ClassVar[PlannedChange.Kind]
        KIND_CORDONED: _ClassVar[PlannedChange.Kind]
    KIND_UNSPECIFIED: PlannedChange.Kind
    KIND_NONE: PlannedChange.Kind
    KIND_INSTALL: PlannedChange.Kind
    KIND_UPDATE: PlannedChange.Kind
    KIND_REMOVE: PlannedChange.Kind
    KIND_HELD: PlannedChange.Kind
    KIND_UNENROLLED: PlannedChange.Kind
    KIND_CORDONED: PlannedChange.Kind
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    FROM_RELEASE_FIELD_NUMBER: _ClassVar[int]
    TO_RELEASE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    device: str
    model: str
    profile: str
    from_release: str
    to_release: str
    kind: PlannedChange.Kind
    note: str
    def __init__(self, device: _Optional[str] = ..., model: _Optional[str] = ..., profile: _Optional[str] = ..., from_release: _Optional[str] = ..., to_release: _Optional[str] = ..., kind: _Optional[_Union[PlannedChange.Kind, str]] = ..., note: _Optional[str] = ...) -> None: ...

class Misfit(_message.Message):
    __slots__ = ("device", "what", "needed_bytes", "available_bytes", "message")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    NEEDED_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    device: str
    what: str
    needed_bytes: int
    available_bytes: int
    message: str
    def __init__(self, device: _Optional[str] = ..., what: _Optional[str] = ..., needed_bytes: _Optional[int] = ..., available_bytes: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class PlannedSource(_message.Message):
    __slots__ = ("model", "steps", "fetch_bytes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FETCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    model: str
    steps: _containers.RepeatedScalarFieldContainer[str]
    fetch_bytes: int
    def __init__(self, model: _Optional[str] = ..., steps: _Optional[_Iterable[str]] = ..., fetch_bytes: _Optional[int] = ...) -> None: ...

class PlanResponse(_message.Message):
    __slots__ = ("builds", "changes", "misfits", "warnings", "waves", "searches", "sources")
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    MISFITS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    WAVES_FIELD_NUMBER: _ClassVar[int]
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    builds: _containers.RepeatedCompositeFieldContainer[PlannedBuild]
    changes: _containers.RepeatedCompositeFieldContainer[PlannedChange]
    misfits: _containers.RepeatedCompositeFieldContainer[Misfit]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    waves: _containers.RepeatedCompositeFieldContainer[WaveView]
    searches: _containers.RepeatedCompositeFieldContainer[RecipeSearch]
    sources: _containers.RepeatedCompositeFieldContainer[PlannedSource]
    def __init__(self, builds: _Optional[_Iterable[_Union[PlannedBuild, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[PlannedChange, _Mapping]]] = ..., misfits: _Optional[_Iterable[_Union[Misfit, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ..., waves: _Optional[_Iterable[_Union[WaveView, _Mapping]]] = ..., searches: _Optional[_Iterable[_Union[RecipeSearch, _Mapping]]] = ..., sources: _Optional[_Iterable[_Union[PlannedSource, _Mapping]]] = ...) -> None: ...

class TriedRecipe(_message.Message):
    __slots__ = ("recipe", "artifact_bytes", "memory_bytes", "standing", "kl", "why")
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    KL_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    recipe: str
    artifact_bytes: int
    memory_bytes: int
    standing: str
    kl: float
    why: str
    def __init__(self, recipe: _Optional[str] = ..., artifact_bytes: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., standing: _Optional[str] = ..., kl: _Optional[float] = ..., why: _Optional[str] = ...) -> None: ...

class RecipeSearch(_message.Message):
    __slots__ = ("model", "profiles", "tried", "chosen")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROFILES_FIELD_NUMBER: _ClassVar[int]
    TRIED_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    profiles: _containers.RepeatedScalarFieldContainer[str]
    tried: _containers.RepeatedCompositeFieldContainer[TriedRecipe]
    chosen: str
    def __init__(self, model: _Optional[str] = ..., profiles: _Optional[_Iterable[str]] = ..., tried: _Optional[_Iterable[_Union[TriedRecipe, _Mapping]]] = ..., chosen: _Optional[str] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("manifest", "file", "folder", "again", "build_only", "devices", "groups", "reason", "supersede")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    BUILD_ONLY_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDE_FIELD_NUMBER: _ClassVar[int]
    manifest: str
    file: str
    folder: str
    again: bool
    build_only: bool
    devices: _containers.RepeatedScalarFieldContainer[str]
    groups: _containers.RepeatedScalarFieldContainer[str]
    reason: str
    supersede: bool
    def __init__(self, manifest: _Optional[str] = ..., file: _Optional[str] = ..., folder: _Optional[str] = ..., again: _Optional[bool] = ..., build_only: _Optional[bool] = ..., devices: _Optional[_Iterable[str]] = ..., groups: _Optional[_Iterable[str]] = ..., reason: _Optional[str] = ..., supersede: _Optional[bool] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("release", "devices", "groups", "generation", "reason")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    release: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    groups: _containers.RepeatedScalarFieldContainer[str]
    generation: int
    reason: str
    def __init__(self, release: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ..., groups: _Optional[_Iterable[str]] = ..., generation: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class BuildProgress(_message.Message):
    __slots__ = ("build_key", "model", "runtime", "quantization", "stage", "fraction", "detail", "artifact", "artifact_bytes")
    BUILD_KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_BYTES_FIELD_NUMBER: _ClassVar[int]
    build_key: str
    model: str
    runtime: str
    quantization: str
    stage: str
    fraction: float
    detail: str
    artifact: str
    artifact_bytes: int
    def __init__(self, build_key: _Optional[str] = ..., model: _Optional[str] = ..., runtime: _Optional[str] = ..., quantization: _Optional[str] = ..., stage: _Optional[str] = ..., fraction: _Optional[float] = ..., detail: _Optional[str] = ..., artifact: _Optional[str] = ..., artifact_bytes: _Optional[int] = ...) -> None: ...

class DeviceProgress(_message.Message):
    __slots__ = ("device", "state", "status", "wave", "reason")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    WAVE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    device: str
    state: str
    status: _agent_pb2.DeviceStatus
    wave: int
    reason: str
    def __init__(self, device: _Optional[str] = ..., state: _Optional[str] = ..., status: _Optional[_Union[_agent_pb2.DeviceStatus, _Mapping]] = ..., wave: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class RolloutProgress(_message.Message):
    __slots__ = ("rollout", "state", "wave", "waves", "reason", "view", "wave_views")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WAVE_FIELD_NUMBER: _ClassVar[int]
    WAVES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    WAVE_VIEWS_FIELD_NUMBER: _ClassVar[int]
    rollout: str
    state: str
    wave: int
    waves: int
    reason: str
    view: RolloutView
    wave_views: _containers.RepeatedCompositeFieldContainer[WaveView]
    def __init__(self, rollout: _Optional[str] = ..., state: _Optional[str] = ..., wave: _Optional[int] = ..., waves: _Optional[int] = ..., reason: _Optional[str] = ..., view: _Optional[_Union[RolloutView, _Mapping]] = ..., wave_views: _Optional[_Iterable[_Union[WaveView, _Mapping]]] = ...) -> None: ...

class DevicesProgress(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceProgress]
    def __init__(self, devices: _Optional[_Iterable[_Union[DeviceProgress, _Mapping]]] = ...) -> None: ...

class ApplyResult(_message.Message):
    __slots__ = ("succeeded", "summary", "devices_succeeded", "devices_failed", "builds_made", "builds_cached")
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    DEVICES_SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FAILED_FIELD_NUMBER: _ClassVar[int]
    BUILDS_MADE_FIELD_NUMBER: _ClassVar[int]
    BUILDS_CACHED_FIELD_NUMBER: _ClassVar[int]
    succeeded: bool
    summary: str
    devices_succeeded: int
    devices_failed: int
    builds_made: int
    builds_cached: int
    def __init__(self, succeeded: _Optional[bool] = ..., summary: _Optional[str] = ..., devices_succeeded: _Optional[int] = ..., devices_failed: _Optional[int] = ..., builds_made: _Optional[int] = ..., builds_cached: _Optional[int] = ...) -> None: ...

class ApplyEvent(_message.Message):
    __slots__ = ("build", "rollout", "device", "message", "result", "plan", "devices", "search")
    BUILD_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    build: BuildProgress
    rollout: RolloutProgress
    device: DeviceProgress
    message: str
    result: ApplyResult
    plan: PlanResponse
    devices: DevicesProgress
    search: RecipeSearch
    def __init__(self, build: _Optional[_Union[BuildProgress, _Mapping]] = ..., rollout: _Optional[_Union[RolloutProgress, _Mapping]] = ..., device: _Optional[_Union[DeviceProgress, _Mapping]] = ..., message: _Optional[str] = ..., result: _Optional[_Union[ApplyResult, _Mapping]] = ..., plan: _Optional[_Union[PlanResponse, _Mapping]] = ..., devices: _Optional[_Union[DevicesProgress, _Mapping]] = ..., search: _Optional[_Union[RecipeSearch, _Mapping]] = ...) -> None: ...

class ControlRolloutRequest(_message.Message):
    __slots__ = ("rollout", "action", "reason", "devices")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTION_UNSPECIFIED: _ClassVar[ControlRolloutRequest.Action]
        ACTION_PAUSE: _ClassVar[ControlRolloutRequest.Action]
        ACTION_RESUME: _ClassVar[ControlRolloutRequest.Action]
        ACTION_ABORT_KEEP: _ClassVar[ControlRolloutRequest.Action]
        ACTION_ABORT_REVERT: _ClassVar[ControlRolloutRequest.Action]
        ACTION_APPROVE: _ClassVar[ControlRolloutRequest.Action]
        ACTION_RETRY: _ClassVar[ControlRolloutRequest.Action]
        ACTION_SKIP: _ClassVar[ControlRolloutRequest.Action]
    ACTION_UNSPECIFIED: ControlRolloutRequest.Action
    ACTION_PAUSE: ControlRolloutRequest.Action
    ACTION_RESUME: ControlRolloutRequest.Action
    ACTION_ABORT_KEEP: ControlRolloutRequest.Action
    ACTION_ABORT_REVERT: ControlRolloutRequest.Action
    ACTION_APPROVE: ControlRolloutRequest.Action
    ACTION_RETRY: ControlRolloutRequest.Action
    ACTION_SKIP: ControlRolloutRequest.Action
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    rollout: str
    action: ControlRolloutRequest.Action
    reason: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rollout: _Optional[str] = ..., action: _Optional[_Union[ControlRolloutRequest.Action, str]] = ..., reason: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ...) -> None: ...

class ControlRolloutResponse(_message.Message):
    __slots__ = ("state", "rollout", "devices")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    state: str
    rollout: str
    devices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[str] = ..., rollout: _Optional[str] = ..., devices: _Optional[_Iterable[str]] = ...) -> None: ...

class ShowRolloutRequest(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: str
    def __init__(self, rollout: _Optional[str] = ...) -> None: ...

class RolloutDeviceView(_message.Message):
    __slots__ = ("device", "wave", "state", "reason", "generation", "release", "previous", "since_unix_ms", "answers_within_s", "detached")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WAVE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_WITHIN_S_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    device: str
    wave: int
    state: str
    reason: str
    generation: int
    release: str
    previous: str
    since_unix_ms: int
    answers_within_s: float
    detached: bool
    def __init__(self, device: _Optional[str] = ..., wave: _Optional[int] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., generation: _Optional[int] = ..., release: _Optional[str] = ..., previous: _Optional[str] = ..., since_unix_ms: _Optional[int] = ..., answers_within_s: _Optional[float] = ..., detached: _Optional[bool] = ...) -> None: ...

class WaveView(_message.Message):
    __slots__ = ("number", "devices", "soak_s", "then", "what")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    SOAK_S_FIELD_NUMBER: _ClassVar[int]
    THEN_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    number: int
    devices: int
    soak_s: float
    then: str
    what: str
    def __init__(self, number: _Optional[int] = ..., devices: _Optional[int] = ..., soak_s: _Optional[float] = ..., then: _Optional[str] = ..., what: _Optional[str] = ...) -> None: ...

class RolloutChangeView(_message.Message):
    __slots__ = ("device", "state", "at_unix_ms", "reason")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    device: str
    state: str
    at_unix_ms: int
    reason: str
    def __init__(self, device: _Optional[str] = ..., state: _Optional[str] = ..., at_unix_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ShowRolloutResponse(_message.Message):
    __slots__ = ("rollout", "waves", "devices", "changes", "policy")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    WAVES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    rollout: RolloutView
    waves: _containers.RepeatedCompositeFieldContainer[WaveView]
    devices: _containers.RepeatedCompositeFieldContainer[RolloutDeviceView]
    changes: _containers.RepeatedCompositeFieldContainer[RolloutChangeView]
    policy: RolloutPolicyView
    def __init__(self, rollout: _Optional[_Union[RolloutView, _Mapping]] = ..., waves: _Optional[_Iterable[_Union[WaveView, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[RolloutDeviceView, _Mapping]]] = ..., changes: _Optional[_Iterable[_Union[RolloutChangeView, _Mapping]]] = ..., policy: _Optional[_Union[RolloutPolicyView, _Mapping]] = ...) -> None: ...

class RolloutPolicyView(_message.Message):
    __slots__ = ("device_deadline_s", "max_failures", "max_failed_percent", "on_failure", "patience_s", "deadline_s", "devices_per_minute", "windows")
    DEVICE_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    MAX_FAILURES_FIELD_NUMBER: _ClassVar[int]
    MAX_FAILED_PERCENT_FIELD_NUMBER: _ClassVar[int]
    ON_FAILURE_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_S_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    DEVICES_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    device_deadline_s: float
    max_failures: int
    max_failed_percent: float
    on_failure: str
    patience_s: float
    deadline_s: float
    devices_per_minute: int
    windows: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, device_deadline_s: _Optional[float] = ..., max_failures: _Optional[int] = ..., max_failed_percent: _Optional[float] = ..., on_failure: _Optional[str] = ..., patience_s: _Optional[float] = ..., deadline_s: _Optional[float] = ..., devices_per_minute: _Optional[int] = ..., windows: _Optional[_Iterable[str]] = ...) -> None: ...

class WatchRolloutRequest(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: str
    def __init__(self, rollout: _Optional[str] = ...) -> None: ...

class ListRolloutsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListRolloutsResponse(_message.Message):
    __slots__ = ("rollouts",)
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    rollouts: _containers.RepeatedCompositeFieldContainer[RolloutView]
    def __init__(self, rollouts: _Optional[_Iterable[_Union[RolloutView, _Mapping]]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("devices", "limit", "decommissioned")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    DECOMMISSIONED_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedScalarFieldContainer[str]
    limit: int
    decommissioned: bool
    def __init__(self, devices: _Optional[_Iterable[str]] = ..., limit: _Optional[int] = ..., decommissioned: _Optional[bool] = ...) -> None: ...

class DeviceView(_message.Message):
    __slots__ = ("device", "enrolled", "online", "seen_s_ago", "desired_generation", "desired_release", "model", "profile", "status", "inventory", "telemetry", "rollout_state", "revoked", "labels", "cordoned", "decommissioned")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    SEEN_S_AGO_FIELD_NUMBER: _ClassVar[int]
    DESIRED_GENERATION_FIELD_NUMBER: _ClassVar[int]
    DESIRED_RELEASE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_FIELD_NUMBER: _ClassVar[int]
    TELEMETRY_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_STATE_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    DECOMMISSIONED_FIELD_NUMBER: _ClassVar[int]
    device: str
    enrolled: bool
    online: bool
    seen_s_ago: float
    desired_generation: int
    desired_release: str
    model: str
    profile: str
    status: _agent_pb2.DeviceStatus
    inventory: _agent_pb2.Inventory
    telemetry: _telemetry_pb2.Telemetry
    rollout_state: str
    revoked: bool
    labels: _containers.ScalarMap[str, str]
    cordoned: str
    decommissioned: bool
    def __init__(self, device: _Optional[str] = ..., enrolled: _Optional[bool] = ..., online: _Optional[bool] = ..., seen_s_ago: _Optional[float] = ..., desired_generation: _Optional[int] = ..., desired_release: _Optional[str] = ..., model: _Optional[str] = ..., profile: _Optional[str] = ..., status: _Optional[_Union[_agent_pb2.DeviceStatus, _Mapping]] = ..., inventory: _Optional[_Union[_agent_pb2.Inventory, _Mapping]] = ..., telemetry: _Optional[_Union[_telemetry_pb2.Telemetry, _Mapping]] = ..., rollout_state: _Optional[str] = ..., revoked: _Optional[bool] = ..., labels: _Optional[_Mapping[str, str]] = ..., cordoned: _Optional[str] = ..., decommissioned: _Optional[bool] = ...) -> None: ...

class ShowDeviceRequest(_message.Message):
    __slots__ = ("device",)
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    device: str
    def __init__(self, device: _Optional[str] = ...) -> None: ...

class GenerationView(_message.Message):
    __slots__ = ("generation", "release", "outcome", "since_unix_ms", "settled_unix_ms", "reason")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    SETTLED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    generation: int
    release: str
    outcome: _agent_pb2.Outcome
    since_unix_ms: int
    settled_unix_ms: int
    reason: str
    def __init__(self, generation: _Optional[int] = ..., release: _Optional[str] = ..., outcome: _Optional[_Union[_agent_pb2.Outcome, str]] = ..., since_unix_ms: _Optional[int] = ..., settled_unix_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ShowDeviceResponse(_message.Message):
    __slots__ = ("device", "generations", "rollouts")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    device: DeviceView
    generations: _containers.RepeatedCompositeFieldContainer[GenerationView]
    rollouts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, device: _Optional[_Union[DeviceView, _Mapping]] = ..., generations: _Optional[_Iterable[_Union[GenerationView, _Mapping]]] = ..., rollouts: _Optional[_Iterable[str]] = ...) -> None: ...

class LabelDevicesRequest(_message.Message):
    __slots__ = ("devices", "set", "remove")
    class SetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedScalarFieldContainer[str]
    set: _containers.ScalarMap[str, str]
    remove: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, devices: _Optional[_Iterable[str]] = ..., set: _Optional[_Mapping[str, str]] = ..., remove: _Optional[_Iterable[str]] = ...) -> None: ...

class LabelDevicesResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CordonDevicesRequest(_message.Message):
    __slots__ = ("devices", "cordoned", "reason")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    CORDONED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedScalarFieldContainer[str]
    cordoned: bool
    reason: str
    def __init__(self, devices: _Optional[_Iterable[str]] = ..., cordoned: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class CordonDevicesResponse(_message.Message):
    __slots__ = ("changed",)
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changed: _Optional[_Iterable[str]] = ...) -> None: ...

class PauseDownloadsRequest(_message.Message):
    __slots__ = ("devices", "paused", "reason")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedScalarFieldContainer[str]
    paused: bool
    reason: str
    def __init__(self, devices: _Optional[_Iterable[str]] = ..., paused: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class PauseDownloadsResponse(_message.Message):
    __slots__ = ("changed",)
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changed: _Optional[_Iterable[str]] = ...) -> None: ...

class DecommissionDeviceRequest(_message.Message):
    __slots__ = ("device", "reason")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    device: str
    reason: str
    def __init__(self, device: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DecommissionDeviceResponse(_message.Message):
    __slots__ = ("certificates",)
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    certificates: int
    def __init__(self, certificates: _Optional[int] = ...) -> None: ...

class ListReleasesRequest(_message.Message):
    __slots__ = ("limit", "model")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    limit: int
    model: str
    def __init__(self, limit: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class ReleaseView(_message.Message):
    __slots__ = ("release", "model", "profile", "runtime", "artifact", "artifact_bytes", "release_epoch", "created_unix_ms", "rolled_back_by", "rolled_back_unix_ms", "devices_active", "devices_desired", "collected", "document", "recipe", "provenance", "statement")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RELEASE_EPOCH_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ROLLED_BACK_BY_FIELD_NUMBER: _ClassVar[int]
    ROLLED_BACK_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    DEVICES_DESIRED_FIELD_NUMBER: _ClassVar[int]
    COLLECTED_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    release: str
    model: str
    profile: str
    runtime: str
    artifact: str
    artifact_bytes: int
    release_epoch: int
    created_unix_ms: int
    rolled_back_by: str
    rolled_back_unix_ms: int
    devices_active: int
    devices_desired: int
    collected: bool
    document: str
    recipe: str
    provenance: str
    statement: str
    def __init__(self, release: _Optional[str] = ..., model: _Optional[str] = ..., profile: _Optional[str] = ..., runtime: _Optional[str] = ..., artifact: _Optional[str] = ..., artifact_bytes: _Optional[int] = ..., release_epoch: _Optional[int] = ..., created_unix_ms: _Optional[int] = ..., rolled_back_by: _Optional[str] = ..., rolled_back_unix_ms: _Optional[int] = ..., devices_active: _Optional[int] = ..., devices_desired: _Optional[int] = ..., collected: _Optional[bool] = ..., document: _Optional[str] = ..., recipe: _Optional[str] = ..., provenance: _Optional[str] = ..., statement: _Optional[str] = ...) -> None: ...

class ListReleasesResponse(_message.Message):
    __slots__ = ("releases",)
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    releases: _containers.RepeatedCompositeFieldContainer[ReleaseView]
    def __init__(self, releases: _Optional[_Iterable[_Union[ReleaseView, _Mapping]]] = ...) -> None: ...

class ShowReleaseRequest(_message.Message):
    __slots__ = ("release",)
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    release: str
    def __init__(self, release: _Optional[str] = ...) -> None: ...

class ListBuildsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class BuildStage(_message.Message):
    __slots__ = ("name", "seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    seconds: float
    def __init__(self, name: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class BuildRecord(_message.Message):
    __slots__ = ("build_key", "model", "recipe", "state", "reason", "artifact", "began_ms", "ended_ms", "stages")
    BUILD_KEY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    BEGAN_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    build_key: str
    model: str
    recipe: str
    state: str
    reason: str
    artifact: str
    began_ms: int
    ended_ms: int
    stages: _containers.RepeatedCompositeFieldContainer[BuildStage]
    def __init__(self, build_key: _Optional[str] = ..., model: _Optional[str] = ..., recipe: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., artifact: _Optional[str] = ..., began_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., stages: _Optional[_Iterable[_Union[BuildStage, _Mapping]]] = ...) -> None: ...

class ListBuildsResponse(_message.Message):
    __slots__ = ("builds",)
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    builds: _containers.RepeatedCompositeFieldContainer[BuildRecord]
    def __init__(self, builds: _Optional[_Iterable[_Union[BuildRecord, _Mapping]]] = ...) -> None: ...

class BuildLogRequest(_message.Message):
    __slots__ = ("build_key", "lines")
    BUILD_KEY_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    build_key: str
    lines: int
    def __init__(self, build_key: _Optional[str] = ..., lines: _Optional[int] = ...) -> None: ...

class BuildLogResponse(_message.Message):
    __slots__ = ("build", "lines")
    BUILD_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    build: BuildRecord
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, build: _Optional[_Union[BuildRecord, _Mapping]] = ..., lines: _Optional[_Iterable[str]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelView(_message.Message):
    __slots__ = ("model", "builds", "refused", "releases", "built_unix_ms", "smallest_bytes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    BUILT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    SMALLEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    model: str
    builds: int
    refused: int
    releases: int
    built_unix_ms: int
    smallest_bytes: int
    def __init__(self, model: _Optional[str] = ..., builds: _Optional[int] = ..., refused: _Optional[int] = ..., releases: _Optional[int] = ..., built_unix_ms: _Optional[int] = ..., smallest_bytes: _Optional[int] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelView]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelView, _Mapping]]] = ...) -> None: ...

class ShowModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class BuildView(_message.Message):
    __slots__ = ("build_key", "artifact", "runtime", "quantization", "recipe", "artifact_bytes", "refused", "card", "measures", "provenance", "built_unix_ms", "releases", "collected")
    BUILD_KEY_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    RECIPE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_BYTES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    MEASURES_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    BUILT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    COLLECTED_FIELD_NUMBER: _ClassVar[int]
    build_key: str
    artifact: str
    runtime: str
    quantization: str
    recipe: str
    artifact_bytes: int
    refused: str
    card: str
    measures: str
    provenance: str
    built_unix_ms: int
    releases: int
    collected: bool
    def __init__(self, build_key: _Optional[str] = ..., artifact: _Optional[str] = ..., runtime: _Optional[str] = ..., quantization: _Optional[str] = ..., recipe: _Optional[str] = ..., artifact_bytes: _Optional[int] = ..., refused: _Optional[str] = ..., card: _Optional[str] = ..., measures: _Optional[str] = ..., provenance: _Optional[str] = ..., built_unix_ms: _Optional[int] = ..., releases: _Optional[int] = ..., collected: _Optional[bool] = ...) -> None: ...

class ShowModelResponse(_message.Message):
    __slots__ = ("model", "builds")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    model: str
    builds: _containers.RepeatedCompositeFieldContainer[BuildView]
    def __init__(self, model: _Optional[str] = ..., builds: _Optional[_Iterable[_Union[BuildView, _Mapping]]] = ...) -> None: ...

class FetchProvenanceRequest(_message.Message):
    __slots__ = ("artifact",)
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    artifact: str
    def __init__(self, artifact: _Optional[str] = ...) -> None: ...

class FetchProvenanceResponse(_message.Message):
    __slots__ = ("artifact", "sha256", "statement")
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    artifact: str
    sha256: str
    statement: bytes
    def __init__(self, artifact: _Optional[str] = ..., sha256: _Optional[str] = ..., statement: _Optional[bytes] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("limit", "device", "since_unix_ms")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    limit: int
    device: str
    since_unix_ms: int
    def __init__(self, limit: _Optional[int] = ..., device: _Optional[str] = ..., since_unix_ms: _Optional[int] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("at_unix_ms", "by", "action", "subject", "what", "why", "outcome")
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    at_unix_ms: int
    by: str
    action: str
    subject: str
    what: str
    why: str
    outcome: str
    def __init__(self, at_unix_ms: _Optional[int] = ..., by: _Optional[str] = ..., action: _Optional[str] = ..., subject: _Optional[str] = ..., what: _Optional[str] = ..., why: _Optional[str] = ..., outcome: _Optional[str] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ...) -> None: ...

class RolloutView(_message.Message):
    __slots__ = ("rollout", "state", "reason", "wave", "waves", "devices_by_state", "what", "by", "created_unix_ms", "ended_unix_ms", "why", "waits_for", "waits_s", "now_unix_ms")
    class DevicesByStateEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAVE_FIELD_NUMBER: _ClassVar[int]
    WAVES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_BY_STATE_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    WAITS_S_FIELD_NUMBER: _ClassVar[int]
    NOW_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    rollout: str
    state: str
    reason: str
    wave: int
    waves: int
    devices_by_state: _containers.ScalarMap[str, int]
    what: str
    by: str
    created_unix_ms: int
    ended_unix_ms: int
    why: str
    waits_for: str
    waits_s: float
    now_unix_ms: int
    def __init__(self, rollout: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., wave: _Optional[int] = ..., waves: _Optional[int] = ..., devices_by_state: _Optional[_Mapping[str, int]] = ..., what: _Optional[str] = ..., by: _Optional[str] = ..., created_unix_ms: _Optional[int] = ..., ended_unix_ms: _Optional[int] = ..., why: _Optional[str] = ..., waits_for: _Optional[str] = ..., waits_s: _Optional[float] = ..., now_unix_ms: _Optional[int] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("fleet", "controller_version", "devices", "rollouts", "broker_connected", "telemetry_stored", "store_trouble")
    FLEET_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    BROKER_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    TELEMETRY_STORED_FIELD_NUMBER: _ClassVar[int]
    STORE_TROUBLE_FIELD_NUMBER: _ClassVar[int]
    fleet: str
    controller_version: str
    devices: _containers.RepeatedCompositeFieldContainer[DeviceView]
    rollouts: _containers.RepeatedCompositeFieldContainer[RolloutView]
    broker_connected: bool
    telemetry_stored: int
    store_trouble: str
    def __init__(self, fleet: _Optional[str] = ..., controller_version: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[DeviceView, _Mapping]]] = ..., rollouts: _Optional[_Iterable[_Union[RolloutView, _Mapping]]] = ..., broker_connected: _Optional[bool] = ..., telemetry_stored: _Optional[int] = ..., store_trouble: _Optional[str] = ...) -> None: ...

class TailRequest(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, devices: _Optional[_Iterable[str]] = ...) -> None: ...

class TailEvent(_message.Message):
    __slots__ = ("envelope", "received_unix_ms")
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    envelope: _telemetry_pb2.Envelope
    received_unix_ms: int
    def __init__(self, envelope: _Optional[_Union[_telemetry_pb2.Envelope, _Mapping]] = ..., received_unix_ms: _Optional[int] = ...) -> None: ...

class CreateEnrolmentRequest(_message.Message):
    __slots__ = ("device", "valid_s")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    VALID_S_FIELD_NUMBER: _ClassVar[int]
    device: str
    valid_s: int
    def __init__(self, device: _Optional[str] = ..., valid_s: _Optional[int] = ...) -> None: ...

class CreateEnrolmentResponse(_message.Message):
    __slots__ = ("token", "expires_unix_ms", "enrolled_unix_ms")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    token: str
    expires_unix_ms: int
    enrolled_unix_ms: int
    def __init__(self, token: _Optional[str] = ..., expires_unix_ms: _Optional[int] = ..., enrolled_unix_ms: _Optional[int] = ...) -> None: ...

class AuthoriseKeyRequest(_message.Message):
    __slots__ = ("device", "public_key_pem")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    device: str
    public_key_pem: str
    def __init__(self, device: _Optional[str] = ..., public_key_pem: _Optional[str] = ...) -> None: ...

class AuthoriseKeyResponse(_message.Message):
    __slots__ = ("token", "key_sha256", "enrolled_unix_ms")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    token: str
    key_sha256: str
    enrolled_unix_ms: int
    def __init__(self, token: _Optional[str] = ..., key_sha256: _Optional[str] = ..., enrolled_unix_ms: _Optional[int] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("kind", "holder", "reason")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[RevokeRequest.Kind]
        KIND_DEVICE: _ClassVar[RevokeRequest.Kind]
        KIND_OPERATOR: _ClassVar[RevokeRequest.Kind]
    KIND_UNSPECIFIED: RevokeRequest.Kind
    KIND_DEVICE: RevokeRequest.Kind
    KIND_OPERATOR: RevokeRequest.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: RevokeRequest.Kind
    holder: str
    reason: str
    def __init__(self, kind: _Optional[_Union[RevokeRequest.Kind, str]] = ..., holder: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ("certificates",)
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    certificates: int
    def __init__(self, certificates: _Optional[int] = ...) -> None: ...

class CollectGarbageRequest(_message.Message):
    __slots__ = ("remove", "unused_s")
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    UNUSED_S_FIELD_NUMBER: _ClassVar[int]
    remove: bool
    unused_s: int
    def __init__(self, remove: _Optional[bool] = ..., unused_s: _Optional[int] = ...) -> None: ...

class Collectable(_message.Message):
    __slots__ = ("kind", "name", "bytes", "used_unix_ms", "what", "why")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    bytes: int
    used_unix_ms: int
    what: str
    why: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., bytes: _Optional[int] = ..., used_unix_ms: _Optional[int] = ..., what: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class CollectGarbageResponse(_message.Message):
    __slots__ = ("going", "count", "bytes", "store_bytes", "removed")
    GOING_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    STORE_BYTES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    going: _containers.RepeatedCompositeFieldContainer[Collectable]
    count: int
    bytes: int
    store_bytes: int
    removed: bool
    def __init__(self, going: _Optional[_Iterable[_Union[Collectable, _Mapping]]] = ..., count: _Optional[int] = ..., bytes: _Optional[int] = ..., store_bytes: _Optional[int] = ..., removed: _Optional[bool] = ...) -> None: ...

class ExportReleaseRequest(_message.Message):
    __slots__ = ("release", "since")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    release: str
    since: str
    def __init__(self, release: _Optional[str] = ..., since: _Optional[str] = ...) -> None: ...

class ExportHead(_message.Message):
    __slots__ = ("fleet", "release", "artifact", "block_index", "base", "bundle_bytes", "index_bytes", "blocks", "content_bytes")
    FLEET_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_INDEX_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    INDEX_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    fleet: str
    release: str
    artifact: str
    block_index: str
    base: str
    bundle_bytes: int
    index_bytes: int
    blocks: int
    content_bytes: int
    def __init__(self, fleet: _Optional[str] = ..., release: _Optional[str] = ..., artifact: _Optional[str] = ..., block_index: _Optional[str] = ..., base: _Optional[str] = ..., bundle_bytes: _Optional[int] = ..., index_bytes: _Optional[int] = ..., blocks: _Optional[int] = ..., content_bytes: _Optional[int] = ...) -> None: ...

class ExportPart(_message.Message):
    __slots__ = ("head", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: ExportHead
    data: bytes
    def __init__(self, head: _Optional[_Union[ExportHead, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class CreateMandateRequest(_message.Message):
    __slots__ = ("device", "profile", "release", "valid_s")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    VALID_S_FIELD_NUMBER: _ClassVar[int]
    device: str
    profile: str
    release: str
    valid_s: int
    def __init__(self, device: _Optional[str] = ..., profile: _Optional[str] = ..., release: _Optional[str] = ..., valid_s: _Optional[int] = ...) -> None: ...

class CreateMandateResponse(_message.Message):
    __slots__ = ("document", "number", "generation", "release", "expires_unix_ms")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    number: int
    generation: int
    release: str
    expires_unix_ms: int
    def __init__(self, document: _Optional[bytes] = ..., number: _Optional[int] = ..., generation: _Optional[int] = ..., release: _Optional[str] = ..., expires_unix_ms: _Optional[int] = ...) -> None: ...

class WhoamiRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoamiResponse(_message.Message):
    __slots__ = ("name", "role", "fleet", "certificate_ends_unix_ms", "controller_version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    FLEET_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_ENDS_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    fleet: str
    certificate_ends_unix_ms: int
    controller_version: str
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., fleet: _Optional[str] = ..., certificate_ends_unix_ms: _Optional[int] = ..., controller_version: _Optional[str] = ...) -> None: ...

class AddOperatorRequest(_message.Message):
    __slots__ = ("name", "role", "valid_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VALID_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    valid_s: int
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., valid_s: _Optional[int] = ...) -> None: ...

class AddOperatorResponse(_message.Message):
    __slots__ = ("token", "expires_unix_ms")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    token: str
    expires_unix_ms: int
    def __init__(self, token: _Optional[str] = ..., expires_unix_ms: _Optional[int] = ...) -> None: ...

class ListOperatorsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OperatorView(_message.Message):
    __slots__ = ("name", "role", "by", "added_unix_ms", "certificate_ends_unix_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    ADDED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_ENDS_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    by: str
    added_unix_ms: int
    certificate_ends_unix_ms: int
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., by: _Optional[str] = ..., added_unix_ms: _Optional[int] = ..., certificate_ends_unix_ms: _Optional[int] = ...) -> None: ...

class ListOperatorsResponse(_message.Message):
    __slots__ = ("operators",)
    OPERATORS_FIELD_NUMBER: _ClassVar[int]
    operators: _containers.RepeatedCompositeFieldContainer[OperatorView]
    def __init__(self, operators: _Optional[_Iterable[_Union[OperatorView, _Mapping]]] = ...) -> None: ...

class SetOperatorRoleRequest(_message.Message):
    __slots__ = ("name", "role")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class SetOperatorRoleResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RemoveOperatorRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RemoveOperatorResponse(_message.Message):
    __slots__ = ("certificates",)
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    certificates: int
    def __init__(self, certificates: _Optional[int] = ...) -> None: ...

class RenewOperatorRequest(_message.Message):
    __slots__ = ("csr_der",)
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    csr_der: bytes
    def __init__(self, csr_der: _Optional[bytes] = ...) -> None: ...

class RenewOperatorResponse(_message.Message):
    __slots__ = ("certificate_chain_pem",)
    CERTIFICATE_CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_chain_pem: bytes
    def __init__(self, certificate_chain_pem: _Optional[bytes] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ("subject", "actor", "since_unix_ms", "last")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    SINCE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    subject: str
    actor: str
    since_unix_ms: int
    last: int
    def __init__(self, subject: _Optional[str] = ..., actor: _Optional[str] = ..., since_unix_ms: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("number", "at_unix_ms", "actor", "action", "subject", "release", "detail", "previous", "hash")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    number: int
    at_unix_ms: int
    actor: str
    action: str
    subject: str
    release: str
    detail: str
    previous: str
    hash: str
    def __init__(self, number: _Optional[int] = ..., at_unix_ms: _Optional[int] = ..., actor: _Optional[str] = ..., action: _Optional[str] = ..., subject: _Optional[str] = ..., release: _Optional[str] = ..., detail: _Optional[str] = ..., previous: _Optional[str] = ..., hash: _Optional[str] = ...) -> None: ...
