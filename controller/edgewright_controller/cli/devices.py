"""`edgewright devices`: what the devices are, how they are labelled, and which of them changes leave alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edgewright_controller.cli import completing, named, reach
from edgewright_controller.cli.ending import BAD_INPUT, Ending

if TYPE_CHECKING:
    from edgewright_contract.v1 import operator_pb2


class _ListsByItself(TyperGroup):
    """`edgewright devices`, with or without flags, is `edgewright devices list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        bare = not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        if bare and not ctx.resilient_parsing:  # a shell that completes a word asks for the group's own
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ListsByItself, help="List, show, label, cordon, pause and decommission devices.")


@app.command("list")
def list_(
    devices: named.DevicesArgument = None,
    *,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="only those with this label, NAME=VALUE; may be repeated")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="those that were decommissioned, too")] = False,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show each device's hardware, runtimes, agent and labels. This is what `edgewright devices` does by itself."""
    from edgewright_controller.cli import device_pages, printing

    wanted = _pairs(label or [], "--label")
    with reach.fleet(config, controller) as fleet:
        answer = fleet.status(devices or [], decommissioned=everything)
    for view in [view for view in answer.devices if not wanted.items() <= dict(view.labels).items()]:
        answer.devices.remove(view)
    if wanted and not answer.devices and not as_json:
        sys.stdout.write(f"no device has {printing.pairs(wanted)}; `edgewright devices label` gives labels\n")
        return 0
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(device_pages.listed(answer))
    return 0


@app.command("show")
def show(
    device: named.DeviceArgument,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show all that is known of one device, with what it was to have and how that went."""
    from edgewright_controller.cli import device_pages, printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.device(device)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(device_pages.shown(answer))
    return 0


@app.command("label")
def label(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DEVICE... [NAME=VALUE]...",
            help="the devices, and the labels that they get",
            autocompletion=completing.devices,
        ),
    ],
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="a label to take away, by name; may be repeated")
    ] = None,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Give devices labels, which groups, profiles and waves of a manifest match. The manifest's own win over them."""
    from edgewright_controller.cli import printing

    labels = _pairs([word for word in words if "=" in word], "label")
    devices = [word for word in words if "=" not in word]
    if not devices:
        raise Ending(f"no device named: edgewright devices label DEVICE {' '.join(words)}", BAD_INPUT)
    if not labels and not remove:
        raise Ending("no label named: give NAME=VALUE, or --remove NAME", BAD_INPUT)
    if both := labels.keys() & set(remove or []):
        raise Ending(f"label {min(both)}: either give it or remove it", BAD_INPUT)
    with reach.fleet(config, controller) as fleet:
        fleet.label(devices, labels, remove=remove or [])
        answer = fleet.status(devices)
    given = {view.device: dict(view.labels) for view in answer.devices}
    if as_json:
        printing.json_document({"labels": given})
    else:
        for device, now in given.items():
            sys.stdout.write(f"{device}: {printing.pairs(now) or 'no labels'}\n")
    return 0


@app.command("cordon")
def cordon(
    devices: named.NamedDevicesArgument,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Leave devices as they are until `uncordon`: no rollout and no rollback of the fleet reaches them."""
    with reach.fleet(config, controller) as fleet:
        answer = fleet.cordon(devices, reason)
    _say(answer, devices, "cordoned", "cordoned already", as_json=as_json)
    return 0


@app.command("uncordon")
def uncordon(
    devices: named.NamedDevicesArgument,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Let changes reach devices again. The next apply gives them what they have missed."""
    with reach.fleet(config, controller) as fleet:
        answer = fleet.uncordon(devices, reason)
    _say(answer, devices, "uncordoned", "was not cordoned", as_json=as_json)
    return 0


@app.command("pause")
def pause(
    devices: named.NamedDevicesArgument,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Have devices fetch nothing until `resume`. What they serve goes on, and so do the deadlines of rollouts."""
    with reach.fleet(config, controller) as fleet:
        answer = fleet.pause_downloads(devices, reason)
    _say(answer, devices, "asked to pause its downloads", "paused already", as_json=as_json)
    return 0


@app.command("resume")
def resume(
    devices: named.NamedDevicesArgument,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Let devices fetch again. A download goes on where it was."""
    with reach.fleet(config, controller) as fleet:
        answer = fleet.resume_downloads(devices, reason)
    _say(answer, devices, "asked to go on with its downloads", "was not paused", as_json=as_json)
    return 0


@app.command("decommission")
def decommission(
    device: named.DeviceArgument,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Take a device out of the fleet for good: its certificates are revoked, and no rollout waits for it."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.decommission(device, reason)
    if as_json:
        printing.json_line(answer)
    else:
        count = printing.count(answer.certificates, "certificate")
        sys.stdout.write(
            f"{device} is out of the fleet; {count} revoked\n"
            f"take it out of the manifest too; to let it in again: edgewright enroll create --device {device}\n"
        )
    return 0


def _pairs(words: Sequence[str], where: str) -> dict[str, str]:
    """Labels written as NAME=VALUE. Raises Ending."""
    pairs: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not name or not sign:
            raise Ending(f"{where}: {word!r} is not NAME=VALUE, as in ring=early", BAD_INPUT)
        if pairs.setdefault(name, value) != value:
            raise Ending(f"{where}: {name} is given twice, as {pairs[name]!r} and as {value!r}", BAD_INPUT)
    return pairs


def _say(
    answer: operator_pb2.CordonDevicesResponse | operator_pb2.PauseDownloadsResponse,
    devices: Sequence[str],
    done: str,
    already: str,
    *,
    as_json: bool,
) -> None:
    from edgewright_controller.cli import printing

    if as_json:
        printing.json_line(answer)
        return
    for device in dict.fromkeys(devices):
        sys.stdout.write(f"{device}: {done if device in answer.changed else already}\n")
