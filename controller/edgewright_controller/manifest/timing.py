"""When a device may be offered a change, and by which clock. A device's time zone is its own, else its site's, else
that of its groups, which must agree, else the fleet's. Its windows are those of its groups, which must agree, else the
rollout's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewright_controller.manifest.assignment import Fault, memberships
from edgewright_controller.rollout.window import Window, words

if TYPE_CHECKING:
    from edgewright_controller.manifest.rollout import WindowHours
    from edgewright_controller.manifest.schema import Manifest


@dataclass(frozen=True)
class Timing:
    """A device's windows, none for always, and the IANA name of the zone that they are in."""

    windows: tuple[Window, ...] = ()
    zone: str = "UTC"


def timings(manifest: Manifest) -> Mapping[str, Timing]:
    """Every device's timing, by id. The manifest has no `timing_faults`."""
    groups_of, site_of = memberships(manifest), sites(manifest)
    return {
        name: Timing(
            next(iter(_windows(manifest, groups_of.get(name, ())).values()), _values(manifest.rollout.window)),
            device.timezone
            or _of_site(manifest, site_of.get(name, ""))
            or next(iter(_zones(manifest, groups_of.get(name, ())).values()), manifest.fleet.timezone or "UTC"),
        )
        for name, device in manifest.devices.items()
    }


def timing_faults(manifest: Manifest) -> Iterable[Fault]:
    """Devices whose groups do not agree."""
    site_of = sites(manifest)
    for name, groups in sorted(memberships(manifest).items()):
        if name not in manifest.devices:
            continue
        zones = _zones(manifest, groups)
        if len(set(zones.values())) > 1 and not (
            manifest.devices[name].timezone or _of_site(manifest, site_of.get(name, ""))
        ):
            said = " and ".join(f"groups.{group} says {zone}" for group, zone in zones.items())
            yield Fault(("devices", name), f"is in groups with different time zones: {said}; name its timezone here")
        windows = _windows(manifest, groups)
        if len(set(windows.values())) > 1:
            said = " and ".join(f"groups.{group} says {words(found)}" for group, found in windows.items())
            yield Fault(
                ("devices", name), f"is in groups with different windows: {said}; give these groups the same windows"
            )


def sites(manifest: Manifest) -> dict[str, str]:
    """The site of each device that has one: its own, else the first that a group of its names."""
    of_groups: dict[str, str] = {}
    for name, groups in memberships(manifest).items():
        for group in groups:
            if (site := manifest.groups[group].site) is not None:
                of_groups.setdefault(name, site)
    found = {name: device.site or of_groups.get(name, "") for name, device in manifest.devices.items()}
    return {name: site for name, site in found.items() if site}


def _of_site(manifest: Manifest, site: str) -> str | None:
    return manifest.sites[site].timezone if site in manifest.sites else None


def _zones(manifest: Manifest, groups: Iterable[str]) -> dict[str, str]:
    return {group: zone for group in groups if (zone := manifest.groups[group].timezone) is not None}


def _windows(manifest: Manifest, groups: Iterable[str]) -> dict[str, tuple[Window, ...]]:
    found = {group: manifest.groups[group].window for group in groups}
    return {group: _values(hours) for group, hours in found.items() if hours is not None}


def _values(hours: Iterable[WindowHours] | None) -> tuple[Window, ...]:
    return tuple(one.window for one in hours or ())
