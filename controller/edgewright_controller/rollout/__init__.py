"""Rollouts: a release moving through waves of devices, as a pure state machine that always ends.

state = begin(spec, now)
changes, actions = step(state, Started(), now)    # then store, then:
apply_changes(state, changes)
"""

from edgewright_controller.rollout.engine import MAX_GAP_S, step
from edgewright_controller.rollout.model import (
    Aborted,
    Action,
    Actions,
    Changes,
    DeviceChange,
    DevicePhase,
    DeviceReported,
    Event,
    Finish,
    Hint,
    OnFailure,
    Outcome,
    Paused,
    Resumed,
    RolloutChange,
    RolloutClock,
    RolloutError,
    RolloutPhase,
    RolloutPolicy,
    RolloutSpec,
    RolloutTarget,
    SetDesired,
    Started,
    Superseded,
    Tick,
    in_two_waves,
)
from edgewright_controller.rollout.state import (
    RolloutState,
    apply_changes,
    begin,
    restore,
    seconds_until_due,
)

__all__ = [
    "MAX_GAP_S",
    "Aborted",
    "Action",
    "Actions",
    "Changes",
    "DeviceChange",
    "DevicePhase",
    "DeviceReported",
    "Event",
    "Finish",
    "Hint",
    "OnFailure",
    "Outcome",
    "Paused",
    "Resumed",
    "RolloutChange",
    "RolloutClock",
    "RolloutError",
    "RolloutPhase",
    "RolloutPolicy",
    "RolloutSpec",
    "RolloutState",
    "RolloutTarget",
    "SetDesired",
    "Started",
    "Superseded",
    "Tick",
    "apply_changes",
    "begin",
    "in_two_waves",
    "restore",
    "seconds_until_due",
    "step",
]
