"""Names that stand in certificates, topics, metadata and manifests.

A device's id is its certificate's CN, the id in its one SAN URI, and its MQTT client id and
user name. Services and operators have CNs outside the grammar of ids (they contain a dot),
so that neither can ever be taken for a device.
"""

from __future__ import annotations

import re
from typing import Final

ID_PATTERN: Final = r"[a-z0-9][a-z0-9-]{0,62}"
# What clients ask for may look as people know models: "assistant", "meta/llama-3.2:1b".
SERVED_NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}"
_ID = re.compile(ID_PATTERN)
_SERVED_NAME = re.compile(SERVED_NAME_PATTERN)
_URI = re.compile(rf"edgewright://({ID_PATTERN})/device/({ID_PATTERN})")

TOPIC_ROOT: Final = "edgewright/v1"
UP_LEAVES: Final = ("state", "telemetry", "event", "update")

CONTROLLER_CN: Final = "service.controller-1"
OPERATOR_PREFIX: Final = "operator."
SERVICE_PREFIX: Final = "service."


def is_id(text: str) -> bool:
    """Whether `text` may name a device, model, profile, group or fleet."""
    return _ID.fullmatch(text) is not None


def is_served_name(text: str) -> bool:
    """Whether `text` may be the name under which clients ask for a model."""
    return _SERVED_NAME.fullmatch(text) is not None


def device_uri(fleet: str, device: str) -> str:
    """The SAN URI of a device's certificate."""
    return f"edgewright://{fleet}/device/{device}"


def parse_device_uri(uri: str) -> tuple[str, str] | None:
    """(fleet, device) of a device's SAN URI, None when it is not one."""
    match = _URI.fullmatch(uri)
    return (match.group(1), match.group(2)) if match else None


def up_topic(device: str, leaf: str) -> str:
    """The topic a device publishes on; `leaf` is one of UP_LEAVES."""
    if leaf not in UP_LEAVES:
        raise ValueError(f"no up topic {leaf!r}; there are {', '.join(UP_LEAVES)}")
    return f"{TOPIC_ROOT}/{device}/up/{leaf}"


def hint_topic(device: str) -> str:
    """The retained topic that says "a newer generation exists, check in". Never authoritative."""
    return f"{TOPIC_ROOT}/{device}/down/hint"


def parse_up_topic(topic: str) -> tuple[str, str] | None:
    """(device, leaf) of an up topic, None when it is not one."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != TOPIC_ROOT or parts[3] != "up":
        return None
    device, leaf = parts[2], parts[4]
    return (device, leaf) if is_id(device) and leaf in UP_LEAVES else None
