"""`edgewright rollout`: the rollouts that there were, and a hand on those that run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_controller.cli import named, reach, watch

if TYPE_CHECKING:
    from edgewright_contract.v1 import operator_pb2
    from edgewright_controller.client import Fleet

    Act = Callable[[Fleet], operator_pb2.ControlRolloutResponse]

app = typer.Typer(help="List, show and steer rollouts.", no_args_is_help=True)


@app.command("list")
def rollouts(
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="at most so many")] = 20,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show rollouts, the newest first, also those that ended."""
    from edgewright_controller.cli import printing, rollout_pages

    with reach.fleet(config, controller) as fleet:
        answer = fleet.rollouts(limit)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(rollout_pages.listed(answer))
    return 0


@app.command("show")
def show(
    rollout: named.AnyRolloutArgument = "",
    *,
    everything: Annotated[bool, typer.Option("--all", help="every device, and all that happened")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="draw the states of all devices over time into this file: .png, .svg")
    ] = None,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show one rollout: its waves and devices, what it waits for and until when, its policy, what happened."""
    from edgewright_controller.cli import printing, rollout_pages, timeline_plot

    if plot is not None:
        timeline_plot.check(plot)
    with reach.fleet(config, controller) as fleet:
        answer = fleet.rollout(rollout)
    if plot is not None:
        timeline_plot.write(answer, plot)
    if as_json:
        printing.json_line(answer)
    elif plot is not None:
        sys.stdout.write(f"{answer.rollout.rollout}: drawn in {plot}\n")
    else:
        printing.out().print(rollout_pages.shown(answer, everything=everything))
    return 0


app.command("watch")(watch.watch)


@app.command("pause")
def pause(
    rollout: named.RolloutArgument,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Offer the release to no further device until `resume`. What was offered goes on."""
    where = reach.Where(config, controller)
    return _control(lambda fleet: fleet.pause(rollout, reason), rollout, where, as_json=as_json)


@app.command("resume")
def resume(
    rollout: named.RolloutArgument,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Go on after `pause`, or after a wave that pauses by itself."""
    where = reach.Where(config, controller)
    return _control(lambda fleet: fleet.resume(rollout, reason), rollout, where, as_json=as_json)


@app.command("approve")
def approve(
    rollout: named.RolloutArgument,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Let the next wave begin, where the one before it asks for approval."""
    where = reach.Where(config, controller)
    return _control(lambda fleet: fleet.approve(rollout, reason), rollout, where, as_json=as_json)


@app.command("retry")
def retry(
    rollout: named.RolloutArgument,
    *,
    devices: named.OnlyDevicesFlag = None,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Offer the release again to devices that failed; without --device, to all of those. What has ended is tried again
    in a new rollout."""
    where = reach.Where(config, controller)
    return _control(
        lambda fleet: fleet.retry(rollout, devices or [], reason), rollout, where, as_json=as_json, did="retried"
    )


@app.command("skip")
def skip(
    rollout: named.RolloutArgument,
    *,
    devices: named.MeantDevicesFlag,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Leave devices out of the rollout. One that is under way returns to what it had."""
    where = reach.Where(config, controller)
    return _control(lambda fleet: fleet.skip(rollout, devices, reason), rollout, where, as_json=as_json, did="skipped")


@app.command("abort")
def abort(
    rollout: named.RolloutArgument,
    *,
    revert: Annotated[
        bool, typer.Option("--revert", help="devices that have the release return to what they had, too")
    ] = False,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """End it. Devices under way return to what they had."""
    where = reach.Where(config, controller)
    return _control(lambda fleet: fleet.abort(rollout, revert=revert, reason=reason), rollout, where, as_json=as_json)


def _control(act: Act, rollout: str, where: reach.Where, *, as_json: bool, did: str = "") -> int:
    from edgewright_controller.cli import printing

    with reach.fleet(where.config, where.controller) as fleet:
        answer = act(fleet)
    if as_json:
        printing.json_line(answer)
        return 0
    meant = answer.rollout or rollout
    whom = f"; {did}: {', '.join(answer.devices)}" if answer.devices else ""
    sys.stdout.write(f"{meant}: {answer.state}{whom}\n")
    if meant != rollout:
        sys.stdout.write(f"{rollout} has ended, so this is a new one; follow it: edgewright rollout watch {meant}\n")
    return 0
