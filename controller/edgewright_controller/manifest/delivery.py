"""How fast, and when, devices may download: the manifest's tables `delivery` and `sites`, and each device's terms.

A device's limit is its own, else that of `delivery`; besides, its site's devices share that of the site. Its window is
its own, else its site's, else that of `delivery`. Its site is its own, else that of its groups, which must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edgewright_controller.delivery.terms import Terms
from edgewright_controller.manifest.assignment import Fault, memberships
from edgewright_controller.manifest.errors import quoted, suggestion
from edgewright_controller.manifest.quantities import Rate, TimeZone
from edgewright_controller.manifest.rollout import Windows
from edgewright_controller.manifest.table import Table
from edgewright_controller.manifest.timing import sites, timings

if TYPE_CHECKING:
    from edgewright_controller.manifest.schema import Manifest


class Delivery(Table):
    """How fast, and when, a device may download."""

    max_rate: Rate | None = None
    """What one device may take, like "20MB/s". Without it, what its line gives."""
    window: Windows | None = None
    """When it may download, by its own clock, like "22:00-06:00". Without it, always."""


class Site(Table):
    """Devices behind one line."""

    max_rate: Rate | None = None
    """What all its devices may take together, like "50MB/s"."""
    window: Windows | None = None
    """When its devices may download, instead of what `delivery` says."""
    timezone: TimeZone | None = None
    """Where it is, like "Europe/Berlin"; a device may say otherwise."""


def terms(manifest: Manifest) -> Mapping[str, Terms]:
    """Every device's terms, by id. The manifest has no `delivery_faults`."""
    site_of, timing_of, fleets = sites(manifest), timings(manifest), manifest.delivery
    found = {}
    for name, device in manifest.devices.items():
        own, site = device.delivery or Delivery(), site_of.get(name, "")
        of_site = manifest.sites[site] if site else Site()
        window = next((one.window for one in (own, of_site, fleets) if one.window is not None), ())
        found[name] = Terms(
            own.max_rate if own.max_rate is not None else fleets.max_rate,
            site,
            of_site.max_rate,
            tuple(hours.window for hours in window),
            timing_of[name].zone,
        )
    return found


def delivery_faults(manifest: Manifest) -> Iterable[Fault]:
    """Sites that there are not, and devices whose groups name different ones."""
    named = [("groups", name, group.site) for name, group in sorted(manifest.groups.items())]
    named += [("devices", name, device.site) for name, device in sorted(manifest.devices.items())]
    for table, name, site in named:
        if site is not None and site not in manifest.sites:
            message = f"there is no site {quoted(site)}{suggestion(site, manifest.sites)}"
            yield Fault((table, name, "site"), message)
    for name, groups in sorted(memberships(manifest).items()):
        said = {group: site for group in groups if (site := manifest.groups[group].site) is not None}
        if name in manifest.devices and manifest.devices[name].site is None and len(set(said.values())) > 1:
            words = " and ".join(f"groups.{group} says {site}" for group, site in said.items())
            yield Fault(("devices", name), f"is in groups with different sites: {words}; name its site here")


def delivery_warnings(manifest: Manifest) -> Iterable[str]:
    """Sites without a device."""
    used = set(sites(manifest).values())
    yield from (f"sites.{name} has no device" for name in sorted(set(manifest.sites) - used))
