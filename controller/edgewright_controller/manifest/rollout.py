"""How a change goes out: the manifest's table `rollout`, and the windows that it and groups may have.

What its keys say together, and with the rest of the manifest, is checked in `rollout_faults`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from edgewright_controller.manifest.profiles import Id, Match
from edgewright_controller.manifest.quantities import ALL, HOURS, EndOfWindow, Seconds, Share, StartOfWindow, hours
from edgewright_controller.manifest.table import Table
from edgewright_controller.rollout.window import DAYS, Window

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MAX_WAVES: Final = 100


class WindowHours(Table):
    """Hours in which something may happen, by a device's own clock; short, for every day: "22:00-06:00"."""

    days: tuple[Day, ...] = Field(default=DAYS, strict=False)
    """Days on which it opens. Without it, every day."""
    start_minute: StartOfWindow = Field(alias="start")
    """When it opens, like "01:00"."""
    end_minute: EndOfWindow = Field(alias="end")
    """When it closes, up to "24:00". Before `start`, it closes on the day after."""

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = hours(value)
        if found is None:
            raise PydanticCustomError("hours", 'must be hours like "22:00-06:00", or a table with start and end')
        return dict(zip(("start", "end"), found, strict=True))

    @model_validator(mode="after")
    def _opens(self) -> Self:
        if not self.days:
            raise PydanticCustomError("window", "never opens: it has no days; name some, or leave `days` out for all")
        if self.start_minute == self.end_minute:
            raise PydanticCustomError(
                "window", 'never opens: it ends when it starts; a whole day is start = "00:00", end = "24:00"'
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        table = handler(core)
        return {"description": table.pop("description"), "anyOf": [{"type": "string", "pattern": HOURS}, table]}

    @property
    def window(self) -> Window:
        """The window as a rollout has it."""
        return Window(frozenset(DAYS.index(day) for day in self.days), self.start_minute, self.end_minute)


def _several(value: Any) -> Any:
    return [value] if isinstance(value, dict | str) else value


class _OneOrSeveral:
    """In the schema: one table, or a list of such."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        several = handler(core)
        return {"anyOf": [several["items"], several]}


Windows = Annotated[
    tuple[WindowHours, ...], Field(strict=False, min_length=1), BeforeValidator(_several), _OneOrSeveral()
]


class Wave(Table):
    """Devices that get a change together: a number, a share like "10%", or a table with one of `devices`, `match` and
    `group`."""

    devices: Share | None = None
    """Until so many of the devices that change have it, those of earlier waves included: a number, or a share."""
    match: Match | None = None
    """Those of the devices that change that have these labels, and that no earlier wave has taken."""
    group: Id | None = None
    """Those of the devices that change that are in this group, and that no earlier wave has taken."""
    soak_s: Seconds | None = Field(default=None, alias="soak")
    """How long the wave is watched after its last device ended. Without it, what the rollout says."""
    approval: bool = False
    """true: when the wave has succeeded, the next one waits for `edgewright rollout approve`."""
    pause: bool = False
    """true: when the wave has succeeded, the rollout is paused until `edgewright rollout resume`."""

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, value: Any) -> Any:
        return value if isinstance(value, dict | list) else {"devices": value}

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if sum(one is not None for one in (self.devices, self.match, self.group)) != 1:
            raise PydanticCustomError("wave", "must have exactly one of devices, match and group")
        if self.approval and self.pause:
            raise PydanticCustomError("wave", "has both approval and pause; keep one")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        table = handler(core)
        share = [one for one in table["properties"]["devices"]["anyOf"] if one.get("type") != "null"]
        return {"description": table.pop("description"), "anyOf": [*share, table]}

    @property
    def words(self) -> str:
        """Which devices it means, for a person: "10%", "3 devices", "ring=early", "group office"."""
        if self.match is not None:
            return self.match.words
        if self.group is not None:
            return f"group {self.group}"
        return str(self.devices) if isinstance(self.devices, str) else f"up to {self.devices}"


class StepDeadlines(Table):
    """Time for single steps of a device. A step without its own has what the whole device has."""

    check_in: Seconds | None = None
    """From the offer to the device's first word."""
    plan: Seconds | None = None
    """To see that there is room."""
    download: Seconds | None = None
    """To fetch what it lacks."""
    stage: Seconds | None = None
    """To verify it and put it in place."""
    start: Seconds | None = None
    """To start the new engine beside the old one."""
    prove: Seconds | None = None
    """To show that it computes where it should."""
    probe: Seconds | None = None
    """To answer its probes."""
    commit: Seconds | None = None
    """To switch over and let the old engine finish."""

    @property
    def seconds(self) -> Mapping[str, int]:
        """Those that are given, by step."""
        return self.model_dump(exclude_none=True)


class Rollout(Table):
    """How a change goes out: in waves, each begun when the one before it did well."""

    waves: tuple[Wave, ...] | None = Field(default=None, strict=False, min_length=1, max_length=MAX_WAVES)
    """The waves in their order; the last one is "100%"."""
    first_wave: Share | None = None
    """Short for two waves, this one and "100%": a number of devices, or a share like "10%". 1 when there are no
    `waves`."""
    soak_s: Seconds = Field(default=0, alias="soak")
    """How long each wave is watched after its last device ended, the last wave too. Without it, not at all."""
    max_failures: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """So many devices may fail or fall silent. With more, and more than `max_failed_percent`, it stops."""
    max_failed_percent: Annotated[int, Field(ge=0, le=99)] = 0
    """Such a share of the devices that were offered it so far may fail or fall silent."""
    on_failure: Literal["keep", "revert"] = "keep"
    """When it stops: "keep" leaves the change where it succeeded, "revert" takes it back there too."""
    device_deadline_s: Seconds = Field(default=900, alias="device_deadline")
    """Time for one device, from the offer to the answer. Silence beyond it is a failure."""
    step_deadlines: StepDeadlines = StepDeadlines()
    """Time for single steps of a device, each within `device_deadline`."""
    patience_s: Seconds = Field(default=7 * 86_400, alias="patience")
    """A pause, a wait for approval, and a wave that can offer nothing end after this: the rollout is aborted, and
    devices keep what they have."""
    deadline_s: Seconds | None = Field(default=None, alias="deadline")
    """Time for the whole rollout; then it is aborted, and devices keep what they have. Without it, none."""
    devices_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """So many devices are offered the change in a minute at most. Without it, a wave's devices all at once."""
    window: Windows | None = None
    """When a device may be offered the change, by its own clock. Without it, always. A group may have its own."""
    health: Literal["on", "off"] = "on"
    """Whether errors and speed of devices with the new version, against the same devices' own before, may stop it."""
    health_ratio: Annotated[float, Field(gt=1, le=1000)] | None = None
    """So many times the errors, or the time for a token, are a regression. Without it, 2."""
    health_min_requests: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Before the new version has answered so many requests, health says nothing. Without it, 100."""

    @property
    def in_waves(self) -> tuple[Wave, ...]:
        """The waves, also where they are not written out."""
        if self.waves is not None:
            return self.waves
        first, rest = Wave(devices=self.first_wave or 1), Wave(devices=ALL)
        return (rest,) if first == rest else (first, rest)

    def soak_of(self, wave: Wave) -> int:
        """Seconds for which this wave is watched."""
        return self.soak_s if wave.soak_s is None else wave.soak_s
