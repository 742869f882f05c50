"""Whether what was seen of a release lets it go on.

Failures are judged before anything else, so that a rollout stops at the failure that exceeds the limit and not at the
end of its wave; then health, which may stop it at any time too. There is no verdict from nothing: without a concluded
device the answer is to wait, and health with too few requests abstains, and says so. What succeeded nowhere is not
promoted, whatever the limit.

Waiting ends: once nothing is under way it takes `soak_s`, and at most twice as long again while health is worse than
before but proves nothing yet.
"""

from __future__ import annotations

from typing import Final

from edgewright_controller.gates.health import ENOUGH
from edgewright_controller.gates.model import Activations, Comparison, GatePolicy, Ruling, Samples, Verdict

LONGER: Final = 2  # soaks more, while health is unclear


def judge(samples: Samples, policy: GatePolicy, now: float) -> Verdict:
    """What `samples` allow at `now`. WAIT says what is being waited for; REVERT what went wrong."""
    seen = samples.activations
    bad = seen.failed + seen.silent
    if bad > policy.max_failures and 100 * bad > policy.max_failed_percent * seen.offered:
        return Verdict(Ruling.REVERT, tuple(_failures(seen, policy)))
    measures = _measures(samples, policy)
    worse = [words for words, measure in measures if measure.weight >= ENOUGH]
    if worse:
        return Verdict(Ruling.REVERT, tuple(worse))
    if seen.under_way:
        return Verdict(Ruling.WAIT, (f"{seen.under_way} of {_devices(seen.offered)} have not said how it ended",))
    if seen.to_come:
        return Verdict(Ruling.WAIT, (f"{_devices(seen.to_come)} of the wave are still to be offered it",))
    if not seen.concluded:
        return Verdict(Ruling.WAIT, ("nothing was activated yet",))
    if not seen.succeeded:
        return Verdict(Ruling.REVERT, (*_failures(seen, policy)[:-1], "none succeeded"))
    left = seen.last_at + policy.soak_s - now
    if left > 0:
        return Verdict(Ruling.WAIT, (f"being watched for {left:.0f} s more",))
    unclear = [words for words, measure in measures if measure.weight > 0]
    left += LONGER * policy.soak_s
    if unclear and left > 0:
        return Verdict(Ruling.WAIT, (*unclear, f"no proof yet: being watched for {left:.0f} s more at most"))
    succeeded = f"{seen.succeeded} of {_devices(seen.offered)} succeeded"
    return Verdict(Ruling.PROMOTE, (succeeded, *_health(samples, policy)))


def _measures(samples: Samples, policy: GatePolicy) -> list[tuple[str, Comparison]]:
    """Each measure that there is, with its words."""
    health, found = samples.health, []
    if policy.health.on and health.errors is not None:
        found.append((_errors(health.errors), health.errors))
    if policy.health.on and health.speed is not None:
        found.append((_speed(health.speed), health.speed))
    return found


def _health(samples: Samples, policy: GatePolicy) -> list[str]:
    """What health says to a release that is promoted."""
    if not policy.health.on:
        return []
    said = [words for words, _ in _measures(samples, policy)]
    if not said and (policy.soak_s or samples.health.requests):  # without a soak nobody looked for it
        answered, needed = samples.health.requests, policy.health.min_requests
        said = [f"health does not say: {answered} requests can be compared, it takes {needed}"]
    if samples.health.probed:
        said.append(f"{_devices(samples.health.probed)} answered the probes again")
    return said


def _errors(found: Comparison) -> str:
    return f"{found.after:.2%} of requests failed on {_devices(found.devices)}, {found.before:.2%} before"


def _speed(found: Comparison) -> str:
    return f"{found.after:.1f} tokens/s on {_devices(found.devices)}, {found.before:.1f} before"


def _failures(seen: Activations, policy: GatePolicy) -> list[str]:
    parts = []
    if seen.failed:
        parts.append(f"{seen.failed} of {_devices(seen.offered)} failed")
    if seen.silent:
        parts.append(f"{seen.silent} of {_devices(seen.offered)} fell silent")
    limit = f"at most {policy.max_failures} may"
    return [*parts, f"{limit}, or {policy.max_failed_percent:g}%" if policy.max_failed_percent else limit]


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
