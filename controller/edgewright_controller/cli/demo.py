"""`edgewright demo`: a fleet of three devices on this machine, with everything real but the hardware."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_contract import durable
from edgewright_controller.cli.ending import FAILED, Ending

if TYPE_CHECKING:
    from edgewright_controller.demo.fleet import DemoFleet
    from edgewright_controller.demo.screen import Screen


def demo(
    leave: Annotated[bool, typer.Option("--exit", help="end by itself; status 0 only if every claim held")] = False,
    state: Annotated[Path, typer.Option("--state", help="where the demo keeps its fleet")] = Path(".cache/demo/fleet"),
    manifests: Annotated[Path, typer.Option("--manifests", help="folder of demo.toml")] = Path("manifests"),
    facts: Annotated[Path | None, typer.Option("--facts", help="write what was measured to this JSON file")] = None,
    only_answers: Annotated[bool, typer.Option("--only-answers", help="stop after the first three answers")] = False,
) -> int:
    """Start a controller, a broker and three agents; compile, roll out, ask, break, and roll back."""
    started = time.monotonic()
    from rich.console import Console

    from edgewright_controller.client import ClientError, Fleet
    from edgewright_controller.demo.children import DemoError, end_on_signals
    from edgewright_controller.demo.fleet import DemoFleet
    from edgewright_controller.demo.screen import Screen
    from edgewright_controller.demo.story import Story

    if not (manifests / "demo.toml").is_file():
        raise Ending(f"{manifests / 'demo.toml'}: no such file; run `make demo` in the project's folder", FAILED)
    if facts is not None and not facts.absolute().parent.is_dir():
        raise Ending(f"--facts: {facts.absolute().parent} is no folder; make it first", FAILED)
    screen = Screen(Console())
    running = DemoFleet(state.absolute())
    end_on_signals()
    try:
        screen.say("Three devices on this machine: every engine here runs on the CPU, whatever the device is called.")
        running.start()
        with Fleet(running.access) as fleet:
            story = Story(running, fleet, screen, manifests.absolute(), started)
            held = story.tell(only_answers=only_answers)
            if facts is not None:
                durable.write(facts.absolute(), json.dumps(asdict(story.facts), indent=1).encode())
            screen.say("\nEvery claim held." if held else "\nNot every claim held: see the ✗ above.")
            if not leave:
                _stay(running, screen)
        return 0 if held else FAILED
    except (DemoError, ClientError) as error:
        raise Ending(f"demo: {error}\nthe logs are in {running.folder / 'logs'}", FAILED) from error
    except OSError as error:
        raise Ending(f"demo: {error}; name another folder with --state, or see to this one", FAILED) from error
    finally:
        running.stop()


def _stay(running: DemoFleet, screen: Screen) -> None:
    """Show where the fleet answers until Ctrl-C."""
    screen.say("\nThe fleet goes on until Ctrl-C:")
    for device in running.devices:
        screen.say(f"  {device.id:10} {device.endpoint}/chat/completions")
    config = running.controller / "operator" / "client.toml"
    screen.say(f"  operator   edgewright status --config {config}")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
