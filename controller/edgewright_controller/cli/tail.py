"""`edgewright tail`: what devices report, as it comes in."""

from __future__ import annotations

from edgewright_controller.cli import named, reach


def tail(
    devices: named.DevicesArgument = None,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Print reports until Ctrl-C."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        for event in fleet.tail(devices or []):
            if as_json:
                printing.json_line(event)
            else:
                printing.out().print(printing.report(event), highlight=False)
    return 0
