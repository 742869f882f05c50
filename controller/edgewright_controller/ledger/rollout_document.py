"""What of a rollout is stored as a document: its policy and the like, which nobody searches.

Values are written as they are called in the engine. What a document of an older version lacks has its default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from edgewright_contract import canonical
from edgewright_controller.rollout import RolloutPolicy, RolloutSpec

_POLICY: Final = TypeAdapter(RolloutPolicy)


def encode(spec: RolloutSpec, about: Mapping[str, Any]) -> str:
    """The document of a rollout; `about` is what its maker says of it."""
    document = {"about": dict(about), "policy": _POLICY.dump_python(spec.policy, mode="json"), "after": []}
    return canonical.encode(document).decode("ascii")


def about(text: str) -> Mapping[str, Any]:
    """What the rollout's maker said of it."""
    said: Mapping[str, Any] = json.loads(text)["about"]
    return said


def policy(text: str) -> RolloutPolicy:
    """The rollout's policy."""
    return _POLICY.validate_python(json.loads(text)["policy"])
