"""What must hold when rollouts have ended and every device is back, whatever was killed. Values in, faults out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgewright_controller.ledger.audit import FIRST, AuditRow
from edgewright_controller.rollout import DevicePhase, RolloutPhase
from tests.simulated_fleet.evidence import Disk, Known, LedgerFound, Rollout

_OPEN = (DevicePhase.WAITING, DevicePhase.OFFERED, DevicePhase.UPDATING, DevicePhase.REVERTING)
_CAME_TO_NOTHING = ("failed", "held")


@dataclass(frozen=True)
class Expected:
    """What the test itself did. `excused`: devices that it told to fail, so they may keep what they had. `commands`:
    (action, rollout) of each command that the controller said it had done. `spooled`: numbers up to which a device had
    given out reports that must be stored by now."""

    excused: frozenset[str] = frozenset()
    commands: Sequence[tuple[str, str]] = ()
    spooled: Mapping[str, int] = field(default_factory=dict)


def losses(ledger: LedgerFound, disks: Mapping[str, Disk], expected: Expected) -> list[str]:
    """Everything that should not be so, in words; empty when nothing was lost."""
    found = [
        *_unended(ledger.rollouts),
        *_untrue(ledger.rollouts, disks),
        *_chain(ledger.audit),
        *_unentered(ledger, expected.commands),
        *_reports(ledger, expected.spooled),
    ]
    for device, disk in disks.items():
        known = ledger.devices.get(device)
        if known is None:
            found.append(f"{device}: the ledger does not know it")
            continue
        found += _device(device, known, disk, excused=device in expected.excused)
        found += _reverted(device, ledger, disk)
    return found


def settled(known: Known, disk: Disk) -> bool:
    """Whether the device has done with what it should have, and the controller has heard how it stands."""
    current = disk.state["generation"] >= known.generation
    return disk.resting and current and known.status.generation == disk.state["generation"] and _agree(known, disk)


def _agree(known: Known, disk: Disk) -> bool:
    said = known.status
    return said.active_release == disk.state["active_release"] and said.sequence >= disk.told and said.step <= 1


def _unended(rollouts: Iterable[Rollout]) -> Iterator[str]:
    for rollout in rollouts:
        if not (rollout.ended and rollout.phase.final):
            yield f"{rollout.id}: it has not ended: {rollout.phase.value}: {rollout.reason}"
            continue
        for device, part in rollout.parts.items():
            if part.phase in _OPEN:
                yield f"{rollout.id}: it {rollout.phase.value}, but {device} is still {part.phase.value}"


def _untrue(rollouts: Iterable[Rollout], disks: Mapping[str, Disk]) -> Iterator[str]:
    """A device that succeeded, by the ledger, must have said so of that generation and release."""
    for rollout in rollouts:
        for device, part in rollout.parts.items():
            if part.phase is not DevicePhase.SUCCEEDED or device not in disks or not disks[device].trail:
                continue
            if not any(_did(line, part.generation, part.release) for line in disks[device].trail):
                yield f"{rollout.id}: {device} succeeded with generation {part.generation}, of which it knows nothing"


def _did(line: Mapping[str, object], generation: int, release: str) -> bool:
    # What was superseded in the middle by the same release goes on under the newer number.
    about = (line.get("outcome"), line.get("active"))
    return line["generation"] == generation and about == ("succeeded", release)


def _chain(entries: Sequence[AuditRow]) -> Iterator[str]:
    before = FIRST
    for number, entry in enumerate(entries, 1):
        if entry.number != number or entry.previous != before or entry.hash != entry.expected_hash:
            yield f"the audit log is broken at entry {number}"
            return
        before = entry.hash


def _unentered(ledger: LedgerFound, commands: Iterable[tuple[str, str]]) -> Iterator[str]:
    entered = {(entry.action, entry.subject) for entry in ledger.audit}
    begun = [("rollout.begin", rollout.id) for rollout in ledger.rollouts]
    for action, subject in (*begun, *commands):
        if (action, subject) not in entered:
            yield f"{subject}: {action} was done, and the audit log does not know it"


def _reports(ledger: LedgerFound, spooled: Mapping[str, int]) -> Iterator[str]:
    epochs: dict[str, int] = {}
    for (device, epoch), reports in ledger.reports.items():
        epochs[device] = epochs.get(device, 0) + 1
        if reports.dropped:
            yield f"{device}: {reports.dropped} reports were dropped"
        if reports.below_mark != reports.mark or reports.mark < spooled.get(device, 0):
            yield (
                f"{device}: {reports.below_mark} reports up to number {reports.mark} of spool {epoch.hex()[:8]} are"
                f" stored, and all up to {spooled.get(device, 0)} should be"
            )
    for device in spooled.keys() - epochs:
        yield f"{device}: no report of it is stored"
    for device, count in epochs.items():
        if count > 1:
            yield f"{device}: it began {count} spools"


def _device(device: str, known: Known, disk: Disk, *, excused: bool) -> Iterator[str]:
    state = disk.state
    generations = [line["generation"] for line in disk.trail if line["what"] == "saved"]
    if generations != sorted(generations):
        yield f"{device}: its generations did not only rise"
    if state["generation"] > known.generation:
        yield f"{device}: it is at generation {state['generation']}, and was given no more than {known.generation}"
    if known.sequence < disk.told:
        yield f"{device}: the controller took status {disk.told}, and the ledger has {known.sequence}"
    if not settled(known, disk):
        yield f"{device}: it is not at rest with what it should have: {_stands(known, disk)}"
    came_to_nothing = state["generation"] == known.generation and state["outcome"] in _CAME_TO_NOTHING
    # An agent that dies again and again over a release gives it up, whoever killed it.
    excused = excused or state["reason"].startswith("the agent stopped")
    if state["active_release"] != known.release and not (excused and came_to_nothing):
        yield f"{device}: it does not run what it should: {_stands(known, disk)}"


def _stands(known: Known, disk: Disk) -> str:
    state, said = disk.state, known.status
    return (
        f"wanted {known.release[:12]} as generation {known.generation}; it has {state['active_release'][:12]},"
        f" {state['step']}, {state['outcome']} with generation {state['generation']} ({state['reason']}); it said last:"
        f" {said.active_release[:12]}, generation {said.generation}, step {said.step}, outcome {said.outcome},"
        f" sequence {said.sequence} of {disk.told}"
    )


def _reverted(device: str, ledger: LedgerFound, disk: Disk) -> Iterator[str]:
    """What was taken back from everybody, or from this device, runs no more, unless something gave it out later."""
    active = disk.state["active_release"]
    for rollout in reversed(ledger.rollouts if active else ()):
        part = rollout.parts.get(device)
        if part is not None and part.previous == active and part.phase is not DevicePhase.SUCCEEDED:
            return  # it goes back to this
        if active not in {one.release for one in rollout.parts.values()}:
            continue
        if part is not None and part.detached and part.phase is DevicePhase.SUCCEEDED:
            return  # it was decommissioned with this, or another rollout has it: it keeps it until the next change
        mine = part is not None and not part.detached and part.phase is DevicePhase.REVERTED
        if mine or _took_everything_back(rollout):
            yield f"{device}: it runs {active[:12]}, which {rollout.id} took back"
        return


def _took_everything_back(rollout: Rollout) -> bool:
    phases = [part.phase for part in rollout.parts.values() if not part.detached]
    stopped = rollout.phase in (RolloutPhase.FAILED, RolloutPhase.ABORTED)
    return stopped and DevicePhase.REVERTED in phases and DevicePhase.SUCCEEDED not in phases


def ends(rollouts: Iterable[Rollout]) -> Mapping[RolloutPhase, int]:
    """How many ended how."""
    counted: dict[RolloutPhase, int] = {}
    for rollout in rollouts:
        counted[rollout.phase] = counted.get(rollout.phase, 0) + 1
    return counted
