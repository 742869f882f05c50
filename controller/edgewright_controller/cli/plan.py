"""`edgewright plan`: what apply would do, and what will not fit."""

from __future__ import annotations

from edgewright_controller.cli import manifest_file, named, reach
from edgewright_controller.cli.ending import FAILED
from edgewright_controller.cli.manifest_file import ManifestArgument


def plan(
    manifest: ManifestArgument,
    *,
    devices: named.OnlyDevicesFlag = None,
    groups: named.OnlyGroupsFlag = None,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show which builds are needed, what changes on which device, and what will not fit."""
    from edgewright_controller.cli import printing

    source = manifest_file.read(manifest)
    with reach.fleet(config, controller) as fleet:
        answer = fleet.plan(source.text, source.file, source.folder, devices=devices or (), groups=groups or ())
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(printing.plan(answer))
    return FAILED if answer.misfits else 0
