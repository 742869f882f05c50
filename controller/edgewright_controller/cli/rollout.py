"""`edgewright rollout`: the rollouts that there were, and a hand on the one that runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_controller.cli import reach

if TYPE_CHECKING:
    from edgewright_contract.v1 import operator_pb2
    from edgewright_controller.client import Fleet

    Act = Callable[[Fleet], operator_pb2.ControlRolloutResponse]

app = typer.Typer(help="List, pause, resume and abort rollouts.", no_args_is_help=True)

RolloutArgument = Annotated[str, typer.Argument(help="the rollout, as `rollout list` names it: rollout-3")]
ReasonFlag = Annotated[str, typer.Option("--reason", help="why; shown with the rollout")]


@app.command("list")
def rollouts(
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="at most so many")] = 20,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show rollouts, the newest first, also those that ended."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.rollouts(limit)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(printing.rollouts(answer))
    return 0


@app.command("pause")
def pause(
    rollout: RolloutArgument,
    reason: ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Offer the release to no further device until `resume`. What was offered goes on."""
    return _control(
        lambda fleet: fleet.pause(rollout, reason), rollout, reach.Where(config, controller), as_json=as_json
    )


@app.command("resume")
def resume(
    rollout: RolloutArgument,
    reason: ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Go on after `pause`."""
    return _control(
        lambda fleet: fleet.resume(rollout, reason), rollout, reach.Where(config, controller), as_json=as_json
    )


@app.command("abort")
def abort(
    rollout: RolloutArgument,
    *,
    revert: Annotated[
        bool, typer.Option("--revert", help="devices that have the release return to what they had, too")
    ] = False,
    reason: ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """End it. Devices under way return to what they had."""
    return _control(
        lambda fleet: fleet.abort(rollout, revert=revert, reason=reason),
        rollout,
        reach.Where(config, controller),
        as_json=as_json,
    )


def _control(act: Act, rollout: str, where: reach.Where, *, as_json: bool) -> int:
    from edgewright_controller.cli import printing

    with reach.fleet(where.config, where.controller) as fleet:
        answer = act(fleet)
    if as_json:
        printing.json_line(answer)
    else:
        sys.stdout.write(f"{rollout}: {answer.state}\n")
    return 0
