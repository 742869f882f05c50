"""What the demo tells: three devices get one model in three formats, refuse three bad releases, and roll back.

Every claim is checked against what the controller and the devices really say; `tell` is true only if all of them held.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.table import Table

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.client import Fleet
from edgewright_controller.demo import sabotage, traffic
from edgewright_controller.demo.fleet import DemoFleet
from edgewright_controller.demo.reports import Heard, Reports
from edgewright_controller.demo.screen import Progress, Screen

QUESTION: Final = "What is the capital of France?"
MODEL: Final = "smollm2"
TELEMETRY_S: Final = 60.0


@dataclass
class Facts:
    """What the benchmark wants to know of one demo. Seconds from the start of the command."""

    answers_s: float = 0.0
    unchanged_apply_s: float = 0.0
    controller_pid: int = 0
    agent_pids: dict[str, int] = field(default_factory=dict)
    held: bool = True


class Story:
    """One telling of the demo."""

    def __init__(self, demo: DemoFleet, fleet: Fleet, screen: Screen, manifests: Path, started: float) -> None:
        self._demo, self._fleet, self._screen, self._manifests = demo, fleet, screen, manifests
        self._started = started
        self._reports = Reports(fleet)
        self._broken = manifests.parent / ".cache" / "demo" / "broken"
        self.facts = Facts(controller_pid=demo.children.named("controller").pid)
        self.facts.agent_pids = {device.id: demo.children.named(device.id).pid for device in demo.devices}

    def tell(self, *, only_answers: bool = False) -> bool:
        """The whole story, in order, or its first act. True if every claim held."""
        good = self._first_release()
        if only_answers:
            return self.facts.held
        self._unchanged_apply()
        endpoints = {device.id: device.endpoint for device in self._demo.devices}
        requests = traffic.Traffic(endpoints, MODEL)
        requests.start()
        self._bad_probe(good)
        self._bad_engine(good)
        self._bad_bytes(good)
        self._next_and_back(good)
        self._requests_meanwhile(requests)
        return self.facts.held

    def _check(self, holds: bool, text: str) -> None:
        self.facts.held &= self._screen.check(holds, text)

    def _apply(self, name: str, *, build_only: bool = False) -> Progress:
        file = self._manifests / name
        # `again`: the last demo may have rolled this release back.
        events = self._fleet.apply(
            file.read_text(encoding="utf-8"), name, str(self._manifests), again=True, build_only=build_only
        )
        return self._screen.follow(events)

    def _active(self) -> dict[str, str]:
        return {view.device: view.status.active_release for view in self._fleet.status().devices}

    def _first_release(self) -> dict[str, str]:
        self._screen.heading("One manifest: compile, sign, roll out, pull, verify, probe, serve")
        progress = self._apply("demo.toml")
        self._check(bool(progress.result and progress.result.succeeded), "three devices serve smollm2")
        for device in self._demo.devices:
            self._ask(device.id, device.endpoint)
        self.facts.answers_s = time.monotonic() - self._started
        self._screen.say(f"  from the start of the command to the third answer: {self.facts.answers_s:.1f} s")
        self._show_telemetry()
        self._artifacts = {
            build.runtime: self._demo.controller / "store" / "artifacts" / build.artifact
            for build in progress.builds.values()
        }
        return self._active()

    def _ask(self, device: str, endpoint: str) -> None:
        try:
            answer = traffic.ask(endpoint, MODEL, QUESTION, max_tokens=24)
        except traffic.AnswerError as error:
            self._check(False, f"{device} answers: {error}")
            return
        rate = f"{answer.tokens_per_s:.1f} tokens/s" if answer.tokens_per_s else f"{answer.tokens} token"
        self._check(bool(answer.text.strip()), f"{device} (on this machine's CPU), {rate}: {answer.text.strip()!r}")

    def _show_telemetry(self) -> None:
        came = self._reports.wait_for_requests([device.id for device in self._demo.devices], TELEMETRY_S)
        self._check(came, "every device reported its answers over MQTT")
        heard = self._reports.heard()
        table = Table(
            "device", "engine", "runs on", "requests", "tokens", "tokens/s", "engine MB", "agent MB", box=None
        )
        for view in self._fleet.status().devices:
            told, status = heard.get(view.device, Heard()), view.status
            table.add_row(
                *(view.device, status.engine, status.accelerator, str(told.requests), str(told.output_tokens)),
                *(f"{told.tokens_per_s:.1f}", f"{told.engine_bytes / 1e6:,.0f}", f"{told.agent_bytes / 1e6:,.0f}"),
            )
        self._screen.console.print(table)

    def _unchanged_apply(self) -> None:
        self._screen.heading("The same manifest again: nothing to do")
        start = time.monotonic()
        progress = self._apply("demo.toml")
        self.facts.unchanged_apply_s = time.monotonic() - start
        result = progress.result or operator_pb2.ApplyResult()
        self._check(
            result.succeeded and result.builds_made == 0,
            f"nothing was built and nothing changed, in {self.facts.unchanged_apply_s:.2f} s",
        )

    def _refused(self, progress: Progress, good: dict[str, str], error: int, what: str) -> None:
        self._check(bool(progress.result and not progress.result.succeeded), f"the rollout of {what} failed")
        for view in self._fleet.status().devices:
            status = view.status
            why = agent_pb2.ErrorCode.Name(status.error).removeprefix("ERROR_CODE_").lower()
            self._check(
                status.active_release == good[view.device] and status.error == error,
                f"{view.device} refused it and still serves {good[view.device][:12]}: {why}: {status.reason}",
            )

    def _bad_probe(self, good: dict[str, str]) -> None:
        self._screen.heading("A bad release: a probe that no answer satisfies")
        progress = self._apply("demo-bad-probe.toml")
        self._refused(progress, good, agent_pb2.ERROR_CODE_PROBE_FAILED, "a release that fails its probe")

    def _bad_engine(self, good: dict[str, str]) -> None:
        self._screen.heading("A bad release: weights that make the engine abort at its start")
        for runtime, artifact in self._artifacts.items():
            sabotage.break_weights(artifact, self._broken / runtime)
        progress = self._apply("demo-bad-engine.toml")
        self._refused(progress, good, agent_pb2.ERROR_CODE_ENGINE_FAILED, "a release whose engine aborts")

    def _bad_bytes(self, good: dict[str, str]) -> None:
        self._screen.heading("A bad release: bytes flipped in the controller's store after signing")
        built = self._apply("demo-bad-bytes.toml", build_only=True)
        store = self._demo.controller / "store" / "artifacts"
        with sabotage.flipped([store / build.artifact for build in built.builds.values()]):
            progress = self._apply("demo-bad-bytes.toml")
        self._refused(progress, good, agent_pb2.ERROR_CODE_ARTIFACT_CORRUPT, "a release with flipped bytes")

    def _generations(self) -> dict[str, int]:
        return {view.device: view.status.generation for view in self._fleet.status().devices}

    def _next_and_back(self, good: dict[str, str]) -> None:
        self._screen.heading("A good release, and one command back")
        progress = self._apply("demo-next.toml")
        newer = self._active()
        self._check(
            bool(progress.result and progress.result.succeeded) and all(newer[d] != good[d] for d in good),
            "every device serves the new release",
        )
        before = self._generations()
        back = self._screen.follow(self._fleet.rollback())
        self._check(bool(back.result and back.result.succeeded), "rollback ended well")
        after = self._generations()
        self._check(
            self._active() == good and all(after[device] > before[device] for device in good),
            "every device serves the release before again, with a higher generation",
        )
        for device in self._demo.devices:
            self._ask(device.id, device.endpoint)

    def _requests_meanwhile(self, requests: traffic.Traffic) -> None:
        self._screen.heading("Requests all the while")
        for device, tally in requests.stop().items():
            detail = f"; the last failure: {tally.last_failure}" if tally.failed else ""
            self._check(
                tally.answered > 0 and tally.failed == 0,
                f"{device}: {tally.answered} answered, {tally.failed} failed{detail}",
            )
