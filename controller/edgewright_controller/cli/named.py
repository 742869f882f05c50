"""Arguments and flags that name things of the fleet, the same in every command, with what the shell offers for them."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_controller.cli import completing

DeviceArgument = Annotated[str, typer.Argument(help="the device's id", autocompletion=completing.devices)]
DevicesArgument = Annotated[
    list[str] | None, typer.Argument(help="devices; none: all", autocompletion=completing.devices)
]
NamedDevicesArgument = Annotated[list[str], typer.Argument(help="the devices", autocompletion=completing.devices)]
OnlyDevicesFlag = Annotated[
    list[str] | None,
    typer.Option("--device", help="only this device; may be repeated", autocompletion=completing.devices),
]
OnlyGroupsFlag = Annotated[
    list[str] | None,
    typer.Option("--group", help="only this group of the manifest; may be repeated", autocompletion=completing.groups),
]
MeantDevicesFlag = Annotated[
    list[str], typer.Option("--device", help="this device; may be repeated", autocompletion=completing.devices)
]
AnyRolloutArgument = Annotated[
    str, typer.Argument(help="the rollout; none: the newest", autocompletion=completing.rollouts)
]
RolloutArgument = Annotated[
    str,
    typer.Argument(help="the rollout, as `rollout list` names it: rollout-3", autocompletion=completing.rollouts),
]
ReleaseArgument = Annotated[
    str,
    typer.Argument(help="the release, by its digest or the beginning of it", autocompletion=completing.releases),
]
ModelArgument = Annotated[
    str, typer.Argument(help="the model, as the manifest names it", autocompletion=completing.models)
]
ReasonFlag = Annotated[str, typer.Option("--reason", help="why; kept with what is done, at most 500 characters")]
