"""`edgewright apply`: make the fleet what the manifest says, and watch until every device reached a final state."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_controller.cli import manifest_file, named, reach
from edgewright_controller.cli.manifest_file import ManifestArgument


def apply(
    manifest: ManifestArgument,
    *,
    devices: named.OnlyDevicesFlag = None,
    groups: named.OnlyGroupsFlag = None,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    again: Annotated[bool, typer.Option("--again", help="release what was rolled back before")] = False,
    build_only: Annotated[
        bool, typer.Option("--build-only", help="compile, sign and publish; change no device")
    ] = False,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="take devices over from rollouts that go on with others")
    ] = False,
    reason: named.ReasonFlag = "",
    as_json: reach.JsonFlag = False,
) -> int:
    """Compile, sign and roll out what the manifest says. Ctrl-C leaves; the work goes on."""
    from edgewright_controller.cli import following

    source = manifest_file.read(manifest)
    with reach.fleet(config, controller) as fleet:
        events = fleet.apply(
            source.text,
            source.file,
            source.folder,
            again=again,
            build_only=build_only,
            devices=devices or (),
            groups=groups or (),
            reason=reason,
            supersede=supersede,
        )
        return following.follow(events, as_json=as_json)
