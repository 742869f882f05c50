"""What of a rollout is stored as a document: its policy, its devices' windows and the like, which nobody searches.

Values are written as they are called in the engine. What a document of an older version lacks has its default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from edgewright_contract import canonical
from edgewright_controller.rollout import AfterWave, RolloutPolicy, RolloutSpec, Window

_POLICY: Final = TypeAdapter(RolloutPolicy)
_AFTER: Final = TypeAdapter(tuple[AfterWave, ...])
_WINDOWS: Final = TypeAdapter(tuple[Window, ...])


def encode(spec: RolloutSpec, about: Mapping[str, Any]) -> str:
    """The document of a rollout; `about` is what its maker says of it."""
    policy, after = _POLICY.dump_python(spec.policy, mode="json"), _AFTER.dump_python(spec.after, mode="json")
    document = {"about": dict(about), "policy": policy, "after": after}
    return canonical.encode(document).decode("ascii")


def about(text: str) -> Mapping[str, Any]:
    """What the rollout's maker said of it."""
    said: Mapping[str, Any] = json.loads(text)["about"]
    return said


def policy(text: str) -> RolloutPolicy:
    """The rollout's policy."""
    return _POLICY.validate_python(json.loads(text)["policy"])


def after(text: str) -> tuple[AfterWave, ...]:
    """What follows each of the rollout's waves."""
    return _AFTER.validate_python(json.loads(text)["after"])


def encoded_windows(windows: tuple[Window, ...], delivery: tuple[Window, ...] = ()) -> str:
    """The windows of one device: a list, or a table of both lists where it downloads in windows, too."""
    offered: Any = _WINDOWS.dump_python(windows, mode="json")
    both = {"offered": offered, "delivery": _WINDOWS.dump_python(delivery, mode="json")}
    return canonical.encode(both if delivery else offered).decode("ascii")


def windows(text: str) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
    """When one device may be offered something, and when it may download, as `encoded_windows` wrote it."""
    if text == "[]":
        return (), ()
    said = json.loads(text)
    both = said if isinstance(said, dict) else {"offered": said, "delivery": []}
    return _WINDOWS.validate_python(both["offered"]), _WINDOWS.validate_python(both["delivery"])
